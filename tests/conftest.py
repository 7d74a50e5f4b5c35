import os
import tempfile

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models are five times slower on many threads
os.environ["HF_HUB_OFFLINE"] = "1"
CACHE = tempfile.TemporaryDirectory(prefix="lightning_jv5-tests-")  # never the user's own
os.environ["LIGHTNING_JV5_CACHE"] = CACHE.name
os.environ["MTEB_CACHE"] = os.path.join(os.environ["LIGHTNING_JV5_CACHE"], "mteb")  # made when mteb is imported
