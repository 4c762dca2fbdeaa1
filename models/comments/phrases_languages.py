"""Comments in other languages, each with a fan's voice and an advertiser's, at length and in three words.

Every phrase holds an accented or Cyrillic letter or one of the words of
``profile.PATTERNS["non_english"]``, so that a plain pattern finds the slice exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.comments.phrases import Pool, Words, lines, pool
from models.comments.phrases_words import VOCABULARY


@dataclass(frozen=True, slots=True)
class Language:
    """One language: the fan's phrases and the advertiser's, and theirs of at most three words."""

    fan: Pool
    advert: Pool
    short_fan: Pool
    short_advert: Pool


def _language(fan: str, advert: str, short_fan: str, short_advert: str, **words: str) -> Language:
    vocabulary: dict[str, Words] = {name: tuple(text.split("|")) for name, text in words.items()}
    vocabulary |= {"artist": VOCABULARY["artist"], "year": VOCABULARY["year"], "small": VOCABULARY["small"]}
    return Language(*(pool(lines(block), vocabulary) for block in (fan, advert, short_fan, short_advert)))


LANGUAGES: tuple[Language, ...] = (
    _language(  # Spanish
        """
        esta canción me {verb} desde el año {year}
        qué {noun} tan {good}, saludos desde {place}
        {artist} es lo más {good} que hay en {place}
        mi {kin} escucha esta {noun} todos los días
        la {noun} más {good} es de {artist}, {year} o no
        """,
        """
        gana dinero desde tu casa, escríbeme por mensaje, {small} plazas
        visita mi canal, subo {stuff} cada semana desde {place}
        vendo {stuff} muy baratos, más información en mi página
        ayúdame a llegar a {small} seguidores, subo {stuff} en español
        """,
        """
        qué {noun} {good}
        me {verb} muchísimo
        está {good}, {noun}
        muy {good}
        """,
        """
        visita mi página
        {stuff} muy baratos
        """,
        verb="encanta|emociona|alegra|anima|fascina",
        noun="canción|melodía|coreografía|música|voz",
        good="hermosa|increíble|genial|preciosa|única|divertida",
        place="Perú|Bogotá|Sevilla|Chile|Oaxaca|Córdoba|Quito",
        kin="abuela|hermano|tía|mamá|vecino|jefe",
        stuff="videos|tutoriales|ritmos|seguidores|cuentas|zapatillas",
    ),
    _language(  # Portuguese
        """
        essa música é {good} demais, saudades de {year}
        não consigo parar de ouvir, {artist} é {good}
        minha {kin} chora quando toca essa {noun}
        alguém ouvindo essa {noun} em {place} no ano de {year}?
        a {noun} mais {good} que já ouvi, abraços de {place}
        """,
        """
        visite meu canal, tem {stuff} toda semana, não custa nada
        ganhe dinheiro em casa com {stuff}, me chame na página
        vendo {stuff} com entrega rápida em {place}, não perca
        faltam {small} inscritos, ajude meu canal de {stuff}, você não vai se arrepender
        """,
        """
        essa {noun} {good}
        muito {good}
        não canso nunca
        """,
        """
        visite minha página
        {stuff} não caros
        """,
        noun="música|canção|dança|batida|voz",
        good="linda|perfeita|maravilhosa|incrível|demais|top",
        place="Recife|Lisboa|São Paulo|Porto|Bahia|Luanda",
        kin="avó|irmã|mãe|prima|professora|vizinha",
        stuff="vídeos|jogos|tênis|seguidores|batidas|cursos",
    ),
    _language(  # German
        """
        das ist {good}, ich höre es seit {year} jeden Tag
        meine {kin} und ich tanzen immer noch zu diesem {noun}
        der {noun} von {artist} ist einfach {good}
        wer hört das noch im Jahr {year}? Grüße aus {place}
        ich bekomme bei diesem {noun} jedes Mal Gänsehaut
        """,
        """
        schaut auf meinem Kanal vorbei, ich lade {stuff} hoch, jede Woche
        ich verkaufe {stuff} und liefere schnell nach {place}
        verdiene Geld von zu Hause, ich zeige dir wie, {small} Plätze frei
        mir fehlen noch {small} Leute, dann verlose ich {stuff}
        """,
        """
        das ist {good}
        ich fühle {noun}
        ich liebe das
        """,
        """
        ich verkaufe {stuff}
        {stuff} für dich
        """,
        noun="Refrain|Beat|Tanz|Klang|Auftritt",
        good="großartig|wunderschön|stark|herrlich|unschlagbar|schön",
        place="Köln|Graz|Bern|Leipzig|Kiel|Zürich",
        kin="Oma|Schwester|Tante|Chefin|Nachbarin|Freundin",
        stuff="Videos|Turnschuhe|Konten|Kurse|Beats|Gutscheine",
    ),
    _language(  # French
        """
        cette {noun} me donne des frissons depuis {year}
        je pleure à chaque fois, {artist} est {good}
        ma {kin} chante cette {noun} tous les matins
        qui écoute encore en {year} ? bisous de {place}
        quelle {noun}, c'est vraiment {good} et je pèse mes mots
        """,
        """
        venez voir ma page, je poste des {stuff} chaque semaine
        gagnez de l'argent à la maison avec mes {stuff}, écrivez moi
        je vends des {stuff} pas chers, livraison à {place}
        encore {small} abonnés et je vous offre des {stuff}
        """,
        """
        cette {noun} {good}
        quelle {noun} {good}
        je suis fan
        """,
        """
        je poste {stuff}
        je vends {stuff}
        """,
        noun="chanson|voix|danse|musique|ambiance",
        good="magnifique|géniale|superbe|sublime|touchante|culte",
        place="Lyon|Genève|Dakar|Nîmes|Liège|Brest",
        kin="mère|sœur|cousine|grand-mère|voisine|prof",
        stuff="vidéos|baskets|montages|codes|bijoux|formations",
    ),
    _language(  # Italian
        """
        questa {noun} è {good}, la ascolto dal {year}
        mia {kin} balla ancora con questa {noun}
        che {noun} {good}, non mi stanco mai di {artist}
        ogni volta che sento questa {noun} penso a {place}
        {artist} a {place} nel {year}, una serata {good} che non dimentico
        """,
        """
        visitate la mia pagina, carico {stuff} ogni settimana, non costa nulla
        vendo {stuff} a poco prezzo, anche a {place}, non perdere tempo
        guadagna da casa con i {stuff}, scrivimi e non te ne pentirai
        mancano {small} iscritti, aiutate questa pagina di {stuff}
        """,
        """
        questa {noun} {good}
        che {noun} {good}
        non mi stanco
        """,
        """
        questi {stuff} gratis
        seguite questa pagina
        """,
        noun="canzone|voce|musica|danza|melodia",
        good="bellissima|stupenda|unica|fantastica|eterna|splendida",
        place="Bari|Torino|Palermo|Trieste|Siena|Como",
        kin="nonna|sorella|zia|cugina|mamma|vicina",
        stuff="video|corsi|profili|codici|ritmi|vestiti",
    ),
    _language(  # Turkish
        """
        bu {noun} çok {good}, {year} yılından beri dinliyorum
        {kin} bu {noun} çalınca hep ağlıyor
        {artist} gerçekten {good}, {place} seni bekliyor
        {year} yılında hâlâ dinleyen var mı?
        bu kadar {good} bir {noun} daha duymadım
        """,
        """
        kanalıma gelin, her hafta {stuff} yüklüyorum
        ucuz {stuff} satıyorum, {place} için hızlı kargo
        evden para kazanmak için bana yazın, {small} kişilik yer kaldı
        {small} takipçi kaldı, destek olun, {stuff} hediye ediyorum
        """,
        """
        çok {good} {noun}
        bu {noun} {good}
        bayıldım bu şarkıya
        """,
        """
        ucuz {stuff} satılık
        bu kanala gelin
        """,
        noun="şarkı|ses|dans|klip|melodi",
        good="güzel|harika|müthiş|efsane|özel|tatlı",
        place="İzmir|Bursa|Antalya|Konya|Trabzon|Adana",
        kin="annem|ablam|dedem|komşum|kuzenim|teyzem",
        stuff="video|hesap|takipçi|ayakkabı|oyun|kurs",
    ),
    _language(  # Russian
        """
        эта {noun} просто {good}, слушаю с {year} года
        моя {kin} до сих пор поёт под эту мелодию
        кто слушает в {year} году? привет из города {place}
        {artist} лучше всех, {noun} {good}
        каждый раз плачу, когда играет эта {noun}
        """,
        """
        заходите на мой канал, там {stuff} каждую неделю
        продаю {stuff} недорого, доставка в город {place}
        зарабатывай дома, пиши мне, осталось {small} мест
        ещё {small} человек и я разыграю {stuff}
        """,
        """
        {noun} {good}
        очень {good} {noun}
        эта {noun} {good}
        """,
        """
        продаю {stuff} недорого
        {stuff} на канале
        """,
        noun="песня|музыка|мелодия|атмосфера|сцена",
        good="супер|прекрасна|волшебная|гениальна|огонь|шикарна",
        place="Казань|Томск|Омск|Самара|Пермь|Тула",
        kin="бабушка|сестра|мама|тётя|соседка|подруга",
        stuff="видео|кроссовки|аккаунты|курсы|биты|подписчики",
    ),
)
