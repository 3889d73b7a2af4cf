"""The data of the image tab: scripts that build the atlas of portraits, its palette and the reference sheet.

The atlas and the references need node (see `atlas.mjs`); the models train on `backend.codecs.portraits.draw_many`.
"""
