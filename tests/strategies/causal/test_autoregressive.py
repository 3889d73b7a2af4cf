"""Plain decoding: one call a token, and the yardstick's own measures are one."""

from tests.strategies.causal.played import counting, play


def test_one_call_a_token() -> None:
    trace = play("autoregressive", budget=7)
    summary = trace.summary()
    assert (summary.new_slots, summary.num_target_calls, summary.mean_acceptance_length) == (7, 7, 1.0)
    assert summary.draft_acceptance_rate is None
    assert summary.rows == {"target": 4 + 6}  # the prompt with the first call, then one row each


def test_a_certain_model_is_followed() -> None:
    assert play("autoregressive", [counting()], prompt="3", budget=5).written() == [4, 5, 0, 1, 2]
