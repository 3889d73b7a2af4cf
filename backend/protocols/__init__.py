"""What strategies and models agree on: one session protocol a kind of model, and what a model and a codec must offer.

Shape letters: N slots scored in a call, V vocabulary, L canvas length, D value dimensions, C channels or features,
T context length of a series, H horizon, S paths or quantiles.
"""

from __future__ import annotations

from collections.abc import Mapping

from backend.protocols.causal import BlockSession as BlockSession
from backend.protocols.causal import CausalSession as CausalSession
from backend.protocols.causal import Exit as Exit
from backend.protocols.causal import FleetSession as FleetSession
from backend.protocols.causal import HeadsSession as HeadsSession
from backend.protocols.causal import JudgeSession as JudgeSession
from backend.protocols.causal import MixingSession as MixingSession
from backend.protocols.causal import NestedSession as NestedSession
from backend.protocols.causal import PictureSession as PictureSession
from backend.protocols.causal import SkippingSession as SkippingSession
from backend.protocols.causal import TwoLevelSession as TwoLevelSession
from backend.protocols.events import EventLaw as EventLaw
from backend.protocols.events import EventSession as EventSession
from backend.protocols.models import Codec as Codec
from backend.protocols.models import Model as Model
from backend.protocols.models import Prompt as Prompt
from backend.protocols.painting import CoarseSession as CoarseSession
from backend.protocols.painting import DistilledSession as DistilledSession
from backend.protocols.painting import FlexibleSession as FlexibleSession
from backend.protocols.painting import GridSession as GridSession
from backend.protocols.painting import MaskedSession as MaskedSession
from backend.protocols.painting import PictureJudgeSession as PictureJudgeSession
from backend.protocols.painting import RedrawingSession as RedrawingSession
from backend.protocols.painting import ScaleSession as ScaleSession
from backend.protocols.values import Band as Band
from backend.protocols.values import BandSession as BandSession
from backend.protocols.values import ContinuousSession as ContinuousSession
from backend.protocols.values import DenoiserSession as DenoiserSession
from backend.protocols.values import EchoLaw as EchoLaw
from backend.protocols.values import ExampleSession as ExampleSession
from backend.protocols.values import FeatureSession as FeatureSession
from backend.protocols.values import ForecastSession as ForecastSession
from backend.protocols.values import HearingSession as HearingSession
from backend.protocols.values import Lags as Lags
from backend.protocols.values import LagsSession as LagsSession
from backend.protocols.values import LookaheadSession as LookaheadSession
from backend.protocols.values import LoopSession as LoopSession
from backend.protocols.values import PatchLaw as PatchLaw
from backend.protocols.values import PathSession as PathSession
from backend.protocols.values import ReorderingPathSession as ReorderingPathSession
from backend.protocols.values import Schedule as Schedule
from backend.protocols.values import SegmentSession as SegmentSession
from backend.protocols.values import SeriesDiffusionSession as SeriesDiffusionSession
from backend.scores import Scores as Scores

PROTOCOL_NAMES: Mapping[type, str] = {
    CausalSession: "causal",
    SkippingSession: "skipping",
    MixingSession: "mixing",
    PictureSession: "picture",
    FleetSession: "fleet",
    TwoLevelSession: "two-level",
    HeadsSession: "heads",
    JudgeSession: "judge",
    NestedSession: "nested",
    BlockSession: "block",
    MaskedSession: "masked",
    GridSession: "grid",
    ScaleSession: "scale",
    FlexibleSession: "flexible",
    RedrawingSession: "redrawing",
    PictureJudgeSession: "picture judge",
    DistilledSession: "distilled",
    CoarseSession: "coarse",
    ContinuousSession: "continuous",
    DenoiserSession: "diffusion",
    ForecastSession: "forecast",
    PathSession: "paths",
    LookaheadSession: "lookahead",
    ReorderingPathSession: "reordering paths",
    BandSession: "bands",
    SeriesDiffusionSession: "series diffusion",
    LagsSession: "lags",
    LoopSession: "loop",
    SegmentSession: "segments",
    ExampleSession: "examples",
    EventSession: "events",
}
PROTOCOLS: tuple[type, ...] = tuple(PROTOCOL_NAMES)
KINDRED: Mapping[type, type] = {FleetSession: CausalSession}  # write what another does, without extending it


def base(protocol: type) -> type:
    """The protocol that this one extends, or itself: a `SkippingSession` is a `CausalSession` that can do more.

    Strategies whose targets have the same base share a folder, a tab and their contract tests.
    """
    return KINDRED.get(protocol) or next(p for p in reversed(protocol.__mro__) if p in PROTOCOL_NAMES)
