"""Comment data for training and monitoring: an unbounded generated stream, and public data sets."""

from models.comments.generate import generate, truth
from models.comments.profile import DEFAULT, PATTERNS, Profile, ShareChange, ShareSchedule, SliceProfile
from models.comments.public import TutorialSplit, load_sms, load_youtube, youtube_tutorial_split

__all__ = [
    "DEFAULT",
    "PATTERNS",
    "Profile",
    "ShareChange",
    "ShareSchedule",
    "SliceProfile",
    "TutorialSplit",
    "generate",
    "load_sms",
    "load_youtube",
    "truth",
    "youtube_tutorial_split",
]
