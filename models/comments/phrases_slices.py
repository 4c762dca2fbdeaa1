"""What puts a comment into a planted slice: one fragment per slice, in either voice or in neither.

``EITHER`` fragments say nothing about the label; they carry the slices whose labels contradict their surface.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from models.comments.phrases import Pool, lines, pool, words
from models.comments.phrases_words import VOCABULARY


@dataclass(frozen=True, slots=True)
class Markers:
    """The fragments of one slice by voice: the fan's, the advertiser's, and neither's."""

    fan: Pool
    advert: Pool
    either: Pool


_WORDS = {
    **VOCABULARY,
    "m": words("0|1|2|3|4|5|00|01|02|03"),
    "s": tuple(f"{second:02d}" for second in range(60)),
}


def _markers(fan: str, advert: str, either: str) -> Markers:
    return Markers(*(pool(lines(block), _WORDS) for block in (fan, advert, either)))


MARKERS: Mapping[str, Markers] = {
    "keyword_please": _markers(
        fan="""
        please never delete this
        please come to {place} next summer
        someone please name {member}
        more songs like this please
        please play it at my funeral
        can {artist} release {part} alone please
        """,
        advert="""
        please help {dream}
        please give {channel} two minutes
        plz like and share
        please follow back
        plz visit {channel}
        just one like please, {goal}
        """,
        either="""
        please read to the end
        please do not skip this
        plz and thank you
        please be kind
        please, i mean it
        anyone, please
        plz somebody answer
        oh please
        just saying, please
        """,
    ),
    "keyword_subscribe": _markers(
        fan="""
        i subscribed to {artist} back in {year}
        so glad i subscribed years ago
        my {relative} made me subscribe and it was worth it
        never subscribe to anyone but {artist} was an exception
        """,
        advert="""
        subscribe to {channel}
        subscribe for {content}
        subscribe and i subscribe back
        hit subscribe for {goal}
        SUBSCRIBE to {channel} for {genre}
        {goal} subscribers is the dream, subscribe today
        """,
        either="""
        that subscribe button again
        {small} subscribers in one night
        to subscribe or not
        subscribed, by the way
        """,
    ),
    "regex_check_out": _markers(
        fan="""
        came to check out {part} after my {relative} would not stop talking
        check the crowd singing out loud in {scene}
        had to check it out again in {year}
        """,
        advert="""
        check out {channel}
        check it out, {content} every week
        go check out {content} on {channel}
        check my {genre} out
        CHECK OUT {channel} for {product}
        come and check out our {genre} {content}
        check us out on {platform}
        """,
        either="""
        check this out
        worth checking out
        do check it out
        """,
    ),
    "giveaway": _markers(
        fan="""
        no giveaway could ever beat {feel}
        i won tickets in a raffle in {place} and saw them live
        remember the radio giveaway in {year}? still have the shirt
        """,
        advert="""
        {product} giveaway on {channel} tonight
        enter the raffle for {product}
        huge giveaway, {small} winners, just follow
        giveaway of {product} when we reach {goal}
        """,
        either="""
        about that giveaway
        another giveaway today
        the raffle again
        """,
    ),
    "timestamp_mention": _markers(
        fan="""
        {m}:{s} gives me {feel}
        that face at {m}:{s}
        {m}:{s} is {good}
        watch {member} at {m}:{s}
        """,
        advert="""
        my advert is on at {m}:{s}
        skip to {m}:{s} and then visit {channel}
        {m}:{s} then {content}
        """,
        either="""
        {m}:{s}
        at {m}:{s}
        see {m}:{s}
        from {m}:{s} to the end
        {m}:{s} again
        around {m}:{s} i wrote this
        """,
    ),
}

_SITES = {
    "host": words("""beatbarn|followfarm|musicnook|clipcastle|fanwiki|songloft|gigboard|sneakpeek
        |coinrush|votehub|tunetown|setlists"""),
    "path": words("watch|song|tour|r|page|vote|lyrics|promo|live|join|news|video"),
    "word": words("tidal|moons|juno|fox42|lantern|mira7|baila|norte|umbra|paper|red9|tram"),
    "code": words("a7|Kx|9q|mZ|t3|Lo|w8|bE|1f|Rr|0d|yu|K2|pp|6s|Vn"),
    "tail": words("Qd|x4|7Z|hk|29|Ge|Q4|xZ|7k|h9|2e|Gd|QZ|xk"),
    "short": words("tny.ly|xmpl.ly|clp.ly|lnkk.ly|fans.ly|hop.ly"),
}
LONG_LINKS: Pool = pool(
    lines("""
    http://www.{host}.example/{path}/{word}
    https://{host}.example/{path}?id={code}{tail}{code}
    www.{host}.example/{word}
    {host}.example.com/{path}/{word}
    https://www.{host}.example.com/{path}?v={code}{tail}{code}
    http://{word}.{host}.example
    """),
    _SITES,
)
SHORT_LINKS: Pool = pool(["{short}/{code}{tail}{code}", "{short}/{word}{tail}"], _SITES)
BOTH_LINKS: Pool = pool(["http://{short}/{code}{tail}{code}", "https://{short}/{word}{tail}"], _SITES)
LINK_LEADS: Pool = pool(
    lines("""
    see
    here
    full text at
    more at
    source
    look
    this one
    from
    found at
    it is all on
    """),
    VOCABULARY,
)
