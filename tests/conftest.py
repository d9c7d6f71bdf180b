"""Settings that every test shares."""

from hypothesis import settings

# Two slow cores must not turn a sound property into a timeout; the blob makes a failure repeatable elsewhere.
settings.register_profile("sfumato", deadline=None, print_blob=True)
settings.load_profile("sfumato")
