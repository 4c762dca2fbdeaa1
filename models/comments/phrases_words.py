"""The vocabularies that fill the slots of every phrase, and the names that commenters go by.

Nothing here may trip a planted slice by accident: no "check", no "please" or "plz", no "subscribe",
no "giveaway" or "raffle", no link, no clock time, no ampersand and no accented letter. A test holds that.
"""

from __future__ import annotations

from collections.abc import Mapping

from models.comments.phrases import Words, words

VOCABULARY: Mapping[str, Words] = {
    "song": words("""this song|this track|this tune|this beat|the chorus|this video|this remix|the melody
        |this one|the hook|this anthem|the whole thing|that first verse|this live version"""),
    "part": words("""the bridge|the drop|the intro|the second verse|the guitar solo|the bass line|the ending
        |the key change|the drum fill|the choir bit|the quiet part|the last chorus|the piano bit
        |the whistling"""),
    "good": words("""amazing|brilliant|unreal|gorgeous|legendary|flawless|so catchy|pure gold|timeless
        |iconic|magic|stunning|perfect|insanely good|underrated|beautiful|wonderful|a masterpiece|a classic
        |top tier"""),
    "bad": words("""overrated|boring|way too loud|annoying|forgettable|cheesy|lazy|a mess|out of tune
        |a bit flat|painfully slow|the worst|not for me"""),
    "feel": words("""goosebumps|chills|tears|all the memories|nostalgia|happy feet|hope|butterflies
        |a huge smile|the shivers|summer vibes|heartache|energy"""),
    "relative": words("""mum|dad|little brother|grandma|sister|uncle|best friend|roommate|cousin|boss
        |maths teacher|neighbour|dog|cat|husband|wife|daughter|barber|coach|flatmate"""),
    "when": words("""every morning|before every exam|on the bus|on repeat since monday
        |in the middle of the night|while doing the dishes|in the shower|on road trips|at the gym
        |during lunch|after every breakup|on sundays|when it rains|when i cook|at weddings
        |before football practice"""),
    "year": tuple(str(year) for year in range(2005, 2026)),
    "place": words("""Brazil|Norway|Kenya|Manila|Texas|Glasgow|Lisbon|Mumbai|Toronto|Peru|Poland|Vietnam
        |Cairo|Leeds|Ohio|Jamaica|Chile|Lagos|Naples|Finland|Ghana|Seoul|Quito|Dublin|Nepal|Serbia|Fiji
        |Utah|Ankara|Perth"""),
    "artist": words("""Neon Harbour|Mira Vale|the Paper Foxes|DJ Lantern|Los Faroles|Ada Quill|Velvet Tram
        |Kid Umbra|Saffron Kings|Juno Park|the Tin Choir|Marlow"""),
    "member": words("""the singer|the drummer|the girl in red|the guy with the hat|that dancer
        |the backup singer|the kid at the end|the bassist|the old man dancing|the producer
        |the lady with the umbrella|her brother"""),
    "views": words("""3 million views|40k likes|a billion views|half a billion|900 million plays
        |2 billion views|ten thousand comments|700k dislikes|a million likes"""),
    "age": tuple(str(age) for age in range(9, 68)),
    "small": tuple(str(number) for number in range(2, 99)),
    "thing": words("""costumes|colours|choreography|lighting|dance moves|camera work|outfits|harmonies|lyrics
        |strings|vocals|drums|synths|story|acting|editing"""),
    "mood": words(
        """crying|dancing|smiling|laughing|singing along|shaking|screaming|vibing|dreaming|jumping"""
    ),
    "scene": words("""the rooftop scene|the rain scene|the horse scene|the car chase|the kitchen fight
        |the slow motion bit|the crowd shot|the final hug|the train scene|the wedding scene
        |the school scene"""),
    "genre": words("rap|trap|EDM|acoustic|metal|lofi|gospel|drill|house|folk|reggaeton|R and B|indie|grime"),
    "content": words("""covers|gaming clips|prank videos|dance tutorials|beats|freestyles|makeup tips
        |guitar lessons|reaction videos|vlogs|cooking shorts|speedruns|remixes|magic tricks|parodies
        |fitness plans"""),
    "channel": words("""my channel|our channel|my page|our page|my profile|this channel|my second channel
        |my brother's channel|the channel in my bio|my new page"""),
    "money": words("""$500 a week|$40 an hour|200 pounds a day|3000 euros a month|$90 before breakfast
        |$1200 weekly|an extra $75 daily|four figures a month|$15 per survey|a second salary"""),
    "product": words("""follower packs|cheap views|phone cases|hoodies|sneakers|diet pills|beat packs
        |proxy servers|gift cards|game coins|a trading course|streaming accounts|custom shirts
        |crypto signals"""),
    "platform": words("insta|snap|twitch|tik tok|soundcloud|kik|discord|telegram|whatsapp|the app store"),
    "goal": words("""100 followers|1000 followers|our first thousand|10k by friday|500 subs|50 fans
        |a million one day|200 before christmas|20 more members|250 likes"""),
    "dream": words("""a record deal|my studio time|going pro|my little sister's operation|our first tour
        |a new microphone|college|a real drum kit|my mixtape|our band"""),
    "emoji": words(
        "😂|😍|🔥|❤️|😭|🎶|👏|💯|🙌|😎|💃|🥰|🤣|✨|🎧|💙|🕺|😢|👍|🌍|🎵|🤘|😮|🙏|💕|🤔|:)|:D|<3|xD|^_^"
    ),
}

EMOJI: Words = tuple(mark for mark in VOCABULARY["emoji"] if "<" not in mark)

OPENERS: Words = words("""hey guys|lol|ok so|omg|hello everyone|honestly|wow|ngl|hi all|bro|yo|guys|um
    |haha|real talk|dear people|so|well|good morning|ahh|listen|hi there|anyway|man|sorry but|question
    |true story""")

ASIDES: Words = (
    "greetings from {place}",
    "much love from {place}",
    "i am {age} by the way",
    "sorry for my english",
    "it is {year} and here i am",
    "who is here in {year}",
    "my {relative} sent me here",
    "thanks for reading all of this",
    "sitting in {place} with my {relative}",
    "typing this next to my {relative}",
    "day {small} of writing here",
    "comment number {small} of today",
)

FIRST_NAMES: Words = words("""Ana|Bram|Chidi|Dasha|Emre|Farah|Gus|Hana|Ivo|Jaya|Kofi|Lena|Milo|Nadia|Omar
    |Pia|Quinn|Rosa|Sven|Tariq|Uma|Vito|Wen|Ximena|Yuki|Zane|Aoife|Bela|Celso|Dina|Elif|Finn|Greta|Hugo
    |Ines|Jonas""")
LAST_NAMES: Words = words("""Aldous|Barros|Cole|Demir|Eriksen|Fofana|Grau|Haddad|Ito|Jansen|Kaur|Lindo
    |Moreau|Nwosu|Okafor|Petrov|Quiroga|Rossi|Silva|Tanaka|Ueda|Vargas|Weiss|Xu|Yilmaz|Zeman|Ash|Birch
    |Crane|Dale""")
HANDLES: Words = words("""PixelOtter|beatfarmer|NightTram|lil_comet|GamerGoose|MusicMoth|xXravenXx
    |TheRealKiwi|dj_pickle|FreeStyler|CoinRocket|PromoPanda|VlogFox|RapHustle|TrapTutor|ViewBooster
    |DealDaily|SubTrain|HypeLlama|clipking""")
VIDEOS: Words = (
    "Neon Harbour - Tidal",
    "Mira Vale - Paper Moons",
    "The Paper Foxes - Run Red",
    "DJ Lantern - Up All June",
    "Los Faroles - Baila Norte",
)
