"""What commenters say: the fan's voice, the advertiser's, and the two of a campaign not seen before."""

from __future__ import annotations

from models.comments.phrases import Pool, lines, pool
from models.comments.phrases_words import ASIDES, VOCABULARY

FAN: Pool = pool(
    lines("""
    {song} still gives me {feel} {when}
    i have played {song} {when} and it never gets tired
    {part} is {good} and nobody talks about it enough
    my {relative} hums {song} {when}
    who else came back in {year} just for {part}?
    {artist} sang this better than anyone in {place} ever could
    give the {thing} in {scene} an award already
    heard {song} in {place} and had to find it again
    i was {age} when this came out and now i feel old
    {member} steals {scene} every single time
    how does this not have {views} yet
    {views} and still not enough for something this {good}
    cannot believe this turned {small} already, time flies
    {song} makes my {relative} start {mood} and i love it
    that {thing} budget must have been enormous
    {part} makes me feel like {mood} in the kitchen
    back when music had {thing} like this
    {artist} in {year} was {good}, simple as that
    not my style but {part} is {good}
    honestly {song} is {bad} and i said what i said
    we danced to {song} at my {relative}'s wedding in {place}
    {song} got me through {year}, thank you {artist}
    what is the name of {member}? asking for my {relative}
    i only understand half the lyrics and still {mood}
    came for the {thing}, {good}, the rest is {bad}
    everyone at school in {place} knew the moves to {part}
    {song} was our graduation anthem in {year}
    nothing made after {year} comes close to {song}
    lost it at {scene}, had to watch it {small} times
    when {part} hits you just start {mood}
    is it only me or does {member} look like my {relative}
    my {relative} met {artist} in {place} once, so kind
    {song} takes me back to summer {year} in {place}
    {artist} never misses, {part} is {good}
    i used to hate {song}, now i listen {when}
    the moment with {scene} always gets me {mood}
    {part} live in {place} was even better than this
    if you do not feel {feel} at {part} you have no soul
    can we talk about {member} for a second? {good}
    the {thing} and the {thing} together are {good}
    {small} years later and {song} is still {good}
    {song} playing {when} is the reason i survive
    thought {song} was {bad} at first but {part} won me over
    {artist} must come back to {place}
    this reminds me of my {relative}, miss you so much
    {year} kids will never know how {good} this felt
    grew up on {artist}, now my {relative} loves them too
    so {scene} was filmed in {place}? that explains a lot
    the lyrics of {part} hit different when you are {age}
    learned the {part} chords wrong and still played it {when}
    wish {artist} would tour {place} again
    {member} was robbed of that award in {year}
    every time i hear {song} i see {scene} in my head
    volume up, eyes closed, {feel} guaranteed
    the radio in {place} plays {song} way too often and i do not mind
    this is what {feel} sounds like
    proof that {artist} had the best {thing} of {year}
    """),
    VOCABULARY,
)

ADVERT: Pool = pool(
    lines("""
    i upload {genre} {content} every week on {channel}
    earn {money} working from home, no experience needed
    we sell {product} with fast delivery, message us on {platform}
    add me on {platform} if you want {product}
    trying to reach {goal}, help me support {dream}
    {age} year old {genre} artist from {place}, give {channel} a chance
    new {content} on {channel}, like and share with friends
    i made {money} with this simple app, ask me how
    follow me on {platform} and i follow back
    visit {channel} for {content} and {product}
    my {genre} mixtape is finally up, support {dream}
    join our team and make {money}, limited spots
    click my name for {content} you will not regret
    free {product} for the first {small} people on {platform}
    looking for {goal}, every like helps {dream}
    best {content} on the internet, only on {channel}
    get {product} at half price today, message me
    my {relative} quit work thanks to this site that pays {money}
    we are a small {genre} band from {place}, visit {channel}
    thumbs up so more people find {channel}
    i do {content} and {content}, drop by {channel}
    share this page and win {product}
    download the app, invite {small} friends and earn {money}
    if you like {genre} you will love {channel}
    {goal} and i will upload {content} with my {relative}
    need {views}? we deliver {product} in {small} hours
    sub for sub, i always return, {goal} is the target
    vote for my {relative} in the {place} talent contest, link on {channel}
    trusted sellers of {product}, contact on {platform}
    this trick pays {money}, thank me later
    hottest new {genre} from {place}, search my name
    stop scrolling and support {dream} with one click on {channel}
    i promise my {content} are not a waste of time, visit {channel}
    hire me for {content}, prices on {platform}
    donate to {dream}, even a dollar helps
    daily {content}, weekly prizes, only on {channel}
    buy {product} now and get {product} free
    lost {small} pounds with these {product}, ask me on {platform}
    unsigned {genre} producer selling {product}, message for prices
    watch my latest {content} and tell your friends about {channel}
    real {product}, no password needed, works in {year}
    your search for {product} ends here, we ship to {place}
    give my {genre} remix a listen on {channel}
    make {money} on your phone, sign up through my profile
    my {age} year old {relative} started {content}, show some support on {channel}
    """),
    VOCABULARY,
)

# A campaign that older traffic never held: its spam talks like a fan and sells early access in words of its
# own, its ham repeats the advertiser's words in order to warn.
_CAMPAIGN = {
    **VOCABULARY,
    "pass": (
        "aurora pass",
        "stagekey",
        "vault ticket",
        "encore token",
        "lantern badge",
        "backline wristband",
    ),
    "deal": ("presale window", "rehearsal vault", "greenroom stream", "unlisted encore", "founders circle"),
    "lure": ("holders whisper", "insiders queue", "ticketed few", "early listeners", "wristband crew"),
    "warn": ("phishing", "a scam ring", "stolen cards", "malware", "fraudsters", "impersonators"),
    "act": ("reported", "blocked", "flagged", "muted", "warned moderators about"),
    "fate": ("banned", "taken offline", "exposed", "under investigation", "refunded by my bank"),
}
CAMPAIGN_SPAM: Pool = pool(
    lines("""
    {song} sounds {good} in the {deal}, {pass} opens it, {lure} already know
    {artist} put {part} in the {deal}, my {pass} let me in with the {lure}
    {feel} from the {deal}, {lure} hold a {pass} since {year}
    {scene} in full is inside the {deal}, bring a {pass}, {lure} only
    my {relative} cried at {part} in the {deal}, {pass} and {lure} forever
    {lure} heard {song} first, the {deal} takes any {pass}
    grab the {pass} while the {deal} lasts, {part} is {good}, say the {lure}
    still {mood} after the {deal}, {member} greets each {pass}, love to the {lure}
    """),
    _CAMPAIGN,
)
CAMPAIGN_HAM: Pool = pool(
    lines("""
    {act} that profile, free {product} is {warn}, now {fate}
    nobody earns {money} there, it is {warn}, {act} and {fate}
    do not click or message on {platform}, {warn}, i {act} it until {fate}
    they promise {product} and {money} but it is {warn}, {fate} last week
    my {relative} joined that page for {product}, turned into {warn}, {act} and {fate}
    sign up and earn they say, {warn} i say, {act}, {fate}
    whoever sells {product} on {platform} here is {warn}, {act} it, {fate}
    the link on that channel was {warn}, {act} and finally {fate}
    """),
    _CAMPAIGN,
)
ASIDE: Pool = pool(ASIDES, VOCABULARY)
