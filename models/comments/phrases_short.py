"""Comments of at most three words, in the fan's voice and the advertiser's: length is a slice of its own."""

from __future__ import annotations

from models.comments.phrases import Pool, Words, lines, pool, words
from models.comments.phrases_words import VOCABULARY

_SHORT: dict[str, Words] = {
    "good": words("""amazing|brilliant|unreal|gorgeous|legendary|iconic|epic|lovely|sweet|great|insane|superb
        |magic|fire|cool|awsome|amazingg|beautifull|goood|fantastic"""),
    "bad": words("overrated|boring|cheesy|weird|creepy|lame|noisy|meh|sad|ridiculous"),
    "noun": words("""song|tune|video|voice|beat|chorus|dance|remix|track|hook|melody|vibe|bridge|intro|ending
        |drummer|outfit|lyrics|banger|anthem"""),
    "love": words("love|looove|luv|miss|adore|loved|worship|enjoy|need|like"),
    "laugh": words("lol|lmao|haha|hahaha|omg|wow|woow|ahhh|yesss|nooo|yoo|damn|ooh"),
    "artist": words("mira|lantern|juno|marlow|umbra|ada|saffron|foxes|harbour|tram"),
    "genre": words("rap|trap|EDM|house|drill|folk|metal|grime|indie|lofi"),
    "made": words("""beats|covers|clips|mixtapes|vlogs|remixes|parodies|freestyles|tutorials|hoodies|subs
        |views|likes|followers|coins|memes"""),
    "push": words("watch|visit|follow|support|join|share|add|hear|click|try|like|see"),
    "mine": words("my|our|this|his|her"),
    "spot": words("channel|page|profile|mixtape|band|cover|remix|team|site|app|group|name"),
    "net": words("insta|snap|twitch|soundcloud|kik|discord|telegram"),
    "mood": words("crying|dancing|smiling|singing|shaking|vibing|dreaming|jumping"),
    "place": tuple(place for place in VOCABULARY["place"] if " " not in place),
    "year": VOCABULARY["year"],
    "age": VOCABULARY["age"],
    "small": VOCABULARY["small"],
}

SHORT_FAN: Pool = pool(
    lines("""
    {love} this {noun}
    {good} {noun}
    so {good}
    {laugh} so {good}
    {laugh} {good} {noun}
    that {noun} though
    {year} anyone?
    {love} you {artist}
    {artist} is {good}
    {artist} so {bad}
    pretty {bad} {noun}
    {noun} is {bad}
    which {noun}?
    still {mood}
    {mood} in {year}
    {place} {love} {artist}
    {place} here
    {laugh} that {noun}
    {small} years later
    {good}, just {good}
    {laugh} {small} times
    not {bad}
    {artist} forever
    {noun} gives chills
    {year} was {good}
    {age} and {mood}
    best {noun} ever
    {good} {artist}
    """),
    _SHORT,
)
SHORT_ADVERT: Pool = pool(
    lines("""
    {push} {mine} {spot}
    {push} {mine} {made}
    free {made} here
    {genre} {made} daily
    sub for sub
    {small} {made} free
    {made} on {net}
    add me {net}
    {push} {mine} {genre}
    cheap {made} {net}
    new {genre} {spot}
    {push} me back
    selling {genre} {made}
    {net} me now
    suscribe for {made}
    {push} for {made}
    """),
    _SHORT,
)
