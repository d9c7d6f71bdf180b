"""Settings that every test shares."""

from hypothesis import settings

# Two slow cores must not turn a sound property into a timeout; the blob makes a failure repeatable elsewhere. The same examples in every
# run: a change is judged by what it changes. `pytest --hypothesis-profile=search` looks for new ones.
settings.register_profile("sfumato", deadline=None, print_blob=True, derandomize=True)
settings.register_profile("search", deadline=None, print_blob=True, max_examples=500)
settings.load_profile("sfumato")
