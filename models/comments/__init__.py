"""Comments to learn from and to watch: an endless generated stream, and the public collections."""

from models.comments.generate import generate, truth
from models.comments.profile import DEFAULT, PATTERNS, Change, Profile, Schedule, SliceProfile
from models.comments.public import TutorialSplit, load_sms, load_youtube, youtube_tutorial_split

__all__ = [
    "DEFAULT",
    "PATTERNS",
    "Change",
    "Profile",
    "Schedule",
    "SliceProfile",
    "TutorialSplit",
    "generate",
    "load_sms",
    "load_youtube",
    "truth",
    "youtube_tutorial_split",
]
