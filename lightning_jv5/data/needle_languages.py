# ruff: noqa: RUF001 (letters of other alphabets are meant here)
"""What needles and the noise around them say, in several languages, by template."""

import itertools
from dataclasses import dataclass

_CYRILLIC = str.maketrans("abdefghijklmnoprstuvzABDFGHJKLMNPRSTVZ", "абдефгхижклмнопрстувзАБДФГХЖКЛМНПРСТВЗ")


@dataclass(frozen=True)
class NeedleLanguage:
    """The sentences of one language.

    Attributes:
        facts: A statement with ``{name}`` and ``{value}`` and the question after its value, with ``{name}``, for each
            kind of value: a code, a room, a time of day, a year, a weight in kilograms, a telephone extension.
        sentence: How ``{subject}``, ``{action}``, ``{place}`` and ``{time}`` make a sentence of noise.
        subjects: Who acted.
        actions: What was done.
        places: Where.
        times: When.
        joiner: What stands between two sentences.
        cyrillic: Whether names are written in Cyrillic letters.
    """

    facts: tuple[tuple[str, str], ...]
    sentence: str
    subjects: tuple[str, ...]
    actions: tuple[str, ...]
    places: tuple[str, ...]
    times: tuple[str, ...]
    joiner: str = " "
    cyrillic: bool = False

    def name(self, latin: str) -> str:
        """Write a name in the letters of the language.

        >>> LANGUAGES["ru"].name("Kavirudo")
        'Кавирудо'
        """
        return latin.translate(_CYRILLIC) if self.cyrillic else latin

    def noise(self) -> list[str]:
        """Return all sentences of noise, none alike.

        >>> LANGUAGES["en"].noise()[0]
        'The caretaker checked the old lists in the cellar early in the morning.'
        """
        parts = itertools.product(self.subjects, self.actions, self.places, self.times)
        made = (
            self.sentence.format(subject=subject, action=action, place=place, time=time)
            for subject, action, place, time in parts
        )
        return [sentence[0].upper() + sentence[1:] for sentence in made]


LANGUAGES = {
    "en": NeedleLanguage(
        facts=(
            ("The access code of the {name} archive is {value}.", "What code opens the {name} archive?"),
            ("The key to the {name} warehouse is kept in room {value}.", "Which room has the key to {name} warehouse?"),
            ("The last ferry from {name} leaves at {value}.", "When does the last ferry leave {name}?"),
            ("The bridge of {name} was opened in {value}.", "In which year was the {name} bridge opened?"),
            ("The bell of {name} weighs {value} kilograms.", "How heavy is the bell of {name}?"),
            ("The {name} laboratory has the extension {value}.", "How do I phone the {name} laboratory?"),
        ),
        sentence="{subject} {action} {place} {time}.",
        subjects=(
            *("the caretaker", "a visitor", "the gardener", "our neighbour", "the teacher", "a young painter"),
            *("the watchman", "the new clerk"),
        ),
        actions=(
            *("checked the old lists", "read a long letter", "repaired a wooden chair", "waited for the others"),
            *("drew a map of the valley", "counted the empty boxes", "talked about the weather", "looked for a lamp"),
            *("drank a cup of tea", "wrote down a few remarks that nobody ever read"),
        ),
        places=(
            *("in the cellar", "beside the river", "on the second floor", "behind the market hall", "in the garden"),
            *("at the station", "near the old mill", "in the reading room of the library"),
        ),
        times=(
            *("early in the morning", "before lunch", "on a rainy Tuesday", "last winter", "late in the evening"),
            *("after the concert", "during the holidays", "without saying a word to anyone"),
        ),
    ),
    "de": NeedleLanguage(
        facts=(
            ("Der Zugangscode des Archivs {name} lautet {value}.", "Mit welchem Code öffnet man das Archiv {name}?"),
            (
                "Der Schlüssel zum Lager {name} liegt in Raum {value}.",
                "Wo liegt der Schlüssel zum Lager {name}?",
            ),
            ("Die letzte Fähre ab {name} fährt um {value} Uhr.", "Wann fährt die letzte Fähre von {name} ab?"),
            ("Die Brücke von {name} wurde {value} eröffnet.", "In welchem Jahr wurde die Brücke von {name} eröffnet?"),
            ("Die Glocke von {name} wiegt {value} Kilogramm.", "Wie schwer ist die Glocke von {name}?"),
            ("Das Labor {name} hat die Durchwahl {value}.", "Unter welcher Nummer erreicht man das Labor {name}?"),
        ),
        sentence="{time} {action} {place}.",
        subjects=("",),  # the verb comes before it, so it is in the action
        actions=tuple(
            f"{verb} {subject} {rest}"
            for subject in (
                *("der Hausmeister", "eine Besucherin", "der Gärtner", "unsere Nachbarin", "die Lehrerin"),
                *("ein junger Maler", "der Wächter", "die neue Sekretärin"),
            )
            for verb, rest in (
                *(("prüfte", "die alten Listen"), ("las", "einen langen Brief"), ("strich", "einen Holzstuhl")),
                *(("wartete", "auf die anderen"), ("zeichnete", "eine Karte des Tals"), ("zählte", "leere Kisten")),
                *(("redete", "über das Wetter"), ("suchte", "eine Lampe"), ("trank", "eine Tasse Tee")),
                ("notierte", "ein paar Bemerkungen für niemanden"),
            )
        ),
        places=(
            *("im Keller", "am Fluss", "im zweiten Stock", "hinter der Markthalle", "im Garten", "am Bahnhof"),
            *("bei der alten Mühle", "im Lesesaal der Bibliothek"),
        ),
        times=(
            *("am frühen Morgen", "vor dem Mittagessen", "an einem verregneten Dienstag", "letzten Winter"),
            *("spät am Abend", "nach dem Konzert", "in den Ferien", "ohne ein Wort zu sagen,"),
        ),
    ),
    "fr": NeedleLanguage(
        facts=(
            ("Le code d'accès des archives {name} est {value}.", "Quel code ouvre les archives {name} ?"),
            ("La clé de l'entrepôt {name} se trouve en salle {value}.", "Dans quelle salle est la clé de {name} ?"),
            ("Le dernier bac de {name} part à {value}.", "Quand part le dernier bac de {name} ?"),
            ("Le pont de {name} a été ouvert en {value}.", "En quelle année le pont de {name} a-t-il été ouvert ?"),
            ("La cloche de {name} pèse {value} kilogrammes.", "Combien pèse la cloche de {name} ?"),
            ("Le laboratoire {name} a le poste {value}.", "Comment appeler le laboratoire {name} ?"),
        ),
        sentence="{subject} {action} {place} {time}.",
        subjects=(
            *("le concierge", "une visiteuse", "le jardinier", "notre voisine", "le professeur", "un jeune peintre"),
            *("le gardien", "la nouvelle employée"),
        ),
        actions=(
            *("a vérifié les vieilles listes", "a lu une longue lettre", "a réparé une chaise", "a attendu les autres"),
            *("a dessiné une carte de la vallée", "a compté les caisses vides", "a parlé du temps"),
            *("a cherché une lampe", "a bu une tasse de thé", "a noté des remarques que personne n'a jamais lues"),
        ),
        places=(
            *("à la cave", "au bord de la rivière", "au deuxième étage", "derrière les halles", "au jardin"),
            *("à la gare", "près du vieux moulin", "dans la salle de lecture de la bibliothèque"),
        ),
        times=(
            *("tôt le matin", "avant le déjeuner", "un mardi de pluie", "l'hiver dernier", "tard le soir"),
            *("après le concert", "pendant les vacances", "sans dire un mot à personne"),
        ),
    ),
    "es": NeedleLanguage(
        facts=(
            ("El código de acceso del archivo {name} es {value}.", "¿Qué código abre el archivo {name}?"),
            ("La llave del almacén {name} está en la sala {value}.", "¿En qué sala está la llave del almacén {name}?"),
            ("El último ferri de {name} sale a las {value}.", "¿Cuándo sale el último ferri de {name}?"),
            ("El puente de {name} se inauguró en {value}.", "¿En qué año se inauguró el puente de {name}?"),
            ("La campana de {name} pesa {value} kilogramos.", "¿Cuánto pesa la campana de {name}?"),
            ("El laboratorio {name} tiene la extensión {value}.", "¿Cómo se llama por teléfono al laboratorio {name}?"),
        ),
        sentence="{subject} {action} {place} {time}.",
        subjects=(
            *("el conserje", "una visitante", "el jardinero", "nuestra vecina", "la maestra", "un joven pintor"),
            *("el vigilante", "la nueva empleada"),
        ),
        actions=(
            *("revisó las viejas listas", "leyó una larga carta", "reparó una silla de madera", "esperó a los demás"),
            *("dibujó un mapa del valle", "contó las cajas vacías", "habló del tiempo", "buscó una lámpara"),
            *("tomó una taza de té", "anotó unas observaciones que nadie leyó nunca"),
        ),
        places=(
            *("en el sótano", "junto al río", "en el segundo piso", "detrás del mercado", "en el jardín"),
            *("en la estación", "cerca del viejo molino", "en la sala de lectura de la biblioteca"),
        ),
        times=(
            *("por la mañana temprano", "antes del almuerzo", "un martes lluvioso", "el invierno pasado"),
            *("a última hora de la tarde", "después del concierto", "durante las vacaciones", "sin decir nada a nadie"),
        ),
    ),
    "it": NeedleLanguage(
        facts=(
            ("Il codice di accesso dell'archivio {name} è {value}.", "Quale codice apre l'archivio {name}?"),
            ("La chiave del magazzino {name} è nella stanza {value}.", "In quale stanza è la chiave di {name}?"),
            ("L'ultimo traghetto da {name} parte alle {value}.", "Quando parte l'ultimo traghetto da {name}?"),
            ("Il ponte di {name} fu aperto nel {value}.", "In che anno fu aperto il ponte di {name}?"),
            ("La campana di {name} pesa {value} chilogrammi.", "Quanto pesa la campana di {name}?"),
            ("Il laboratorio {name} ha l'interno {value}.", "Come si telefona al laboratorio {name}?"),
        ),
        sentence="{subject} {action} {place} {time}.",
        subjects=(
            *("il custode", "una visitatrice", "il giardiniere", "la nostra vicina", "la maestra"),
            *("un giovane pittore", "il guardiano", "la nuova impiegata"),
        ),
        actions=(
            *("controllò i vecchi elenchi", "lesse una lunga lettera", "riparò una sedia di legno"),
            *("aspettò gli altri", "disegnò una mappa della valle", "contò le casse vuote", "parlò del tempo"),
            *("cercò una lampada", "bevve una tazza di tè", "annotò osservazioni che nessuno lesse mai"),
        ),
        places=(
            *("in cantina", "lungo il fiume", "al secondo piano", "dietro il mercato coperto", "in giardino"),
            *("alla stazione", "vicino al vecchio mulino", "nella sala di lettura della biblioteca"),
        ),
        times=(
            *("la mattina presto", "prima di pranzo", "un martedì di pioggia", "lo scorso inverno", "a tarda sera"),
            *("dopo il concerto", "durante le vacanze", "senza dire una parola a nessuno"),
        ),
    ),
    "pt": NeedleLanguage(
        facts=(
            ("O código de acesso do arquivo {name} é {value}.", "Que código abre o arquivo {name}?"),
            ("A chave do armazém {name} está na sala {value}.", "Em que sala está a chave do armazém {name}?"),
            ("A última balsa de {name} parte às {value}.", "Quando parte a última balsa de {name}?"),
            ("A ponte de {name} foi inaugurada em {value}.", "Em que ano foi inaugurada a ponte de {name}?"),
            ("O sino de {name} pesa {value} quilogramas.", "Quanto pesa o sino de {name}?"),
            ("O laboratório {name} tem o ramal {value}.", "Como se telefona para o laboratório {name}?"),
        ),
        sentence="{subject} {action} {place} {time}.",
        subjects=(
            *("o porteiro", "uma visitante", "o jardineiro", "a nossa vizinha", "a professora", "um jovem pintor"),
            *("o vigia", "a nova funcionária"),
        ),
        actions=(
            *("conferiu as velhas listas", "leu uma longa carta", "consertou uma cadeira", "esperou pelos outros"),
            *("desenhou um mapa do vale", "contou as caixas vazias", "falou do tempo", "procurou uma lâmpada"),
            *("bebeu uma xícara de chá", "anotou observações que ninguém jamais leu"),
        ),
        places=(
            *("no porão", "à beira do rio", "no segundo andar", "atrás do mercado", "no jardim", "na estação"),
            *("perto do velho moinho", "na sala de leitura da biblioteca"),
        ),
        times=(
            *("de manhã cedo", "antes do almoço", "numa terça-feira chuvosa", "no inverno passado"),
            *("tarde da noite", "depois do concerto", "durante as férias", "sem dizer uma palavra a ninguém"),
        ),
    ),
    "nl": NeedleLanguage(
        facts=(
            ("De toegangscode van archief {name} is {value}.", "Met welke code gaat archief {name} open?"),
            ("De sleutel van magazijn {name} ligt in kamer {value}.", "In welke kamer ligt de sleutel van {name}?"),
            ("De laatste veerboot uit {name} vertrekt om {value}.", "Wanneer gaat de laatste veerboot uit {name}?"),
            ("De brug van {name} werd geopend in {value}.", "In welk jaar werd de brug van {name} geopend?"),
            ("De klok van {name} weegt {value} kilogram.", "Hoe zwaar is de klok van {name}?"),
            ("Laboratorium {name} heeft toestelnummer {value}.", "Hoe bel ik laboratorium {name}?"),
        ),
        sentence="{subject} {action} {place} {time}.",
        subjects=(
            *("de conciërge", "een bezoeker", "de tuinman", "onze buurvrouw", "de lerares", "een jonge schilder"),
            *("de bewaker", "de nieuwe klerk"),
        ),
        actions=(
            *("controleerde de oude lijsten", "las een lange brief", "repareerde een stoel", "wachtte op de anderen"),
            *("tekende een kaart van het dal", "telde de lege dozen", "praatte over het weer", "zocht een lamp"),
            *("dronk een kop thee", "schreef opmerkingen op die niemand ooit las"),
        ),
        places=(
            *("in de kelder", "langs de rivier", "op de tweede verdieping", "achter de markthal", "in de tuin"),
            *("op het station", "bij de oude molen", "in de leeszaal van de bibliotheek"),
        ),
        times=(
            *("vroeg in de ochtend", "voor de lunch", "op een regenachtige dinsdag", "afgelopen winter"),
            *("laat op de avond", "na het concert", "tijdens de vakantie", "zonder een woord te zeggen"),
        ),
    ),
    "ru": NeedleLanguage(
        facts=(
            ("Код доступа к архиву «{name}» — {value}.", "Каким кодом открывается архив «{name}»?"),
            ("Ключ от склада «{name}» лежит в комнате {value}.", "В какой комнате лежит ключ от склада «{name}»?"),
            ("Последний паром от пристани «{name}» уходит в {value}.", "Когда уходит последний паром от «{name}»?"),
            ("Мост «{name}» был открыт в {value} году.", "В каком году открыли мост «{name}»?"),
            ("Колокол «{name}» весит {value} килограммов.", "Сколько весит колокол «{name}»?"),
            ("У лаборатории «{name}» добавочный номер {value}.", "Как позвонить в лабораторию «{name}»?"),
        ),
        sentence="{subject} {action} {place} {time}.",
        subjects=("сторож", "посетитель", "садовник", "наш сосед", "учитель", "молодой художник", "дворник", "писарь"),
        actions=(
            *("проверил старые списки", "прочитал длинное письмо", "починил деревянный стул", "ждал остальных"),
            *("нарисовал карту долины", "пересчитал пустые ящики", "говорил о погоде", "искал лампу"),
            *("выпил чашку чая", "записал заметки, которых никто не читал,"),
        ),
        places=(
            *("в подвале", "у реки", "на втором этаже", "за рынком", "в саду", "на вокзале", "у старой мельницы"),
            "в читальном зале библиотеки",
        ),
        times=(
            *("рано утром", "перед обедом", "в дождливый вторник", "прошлой зимой", "поздно вечером"),
            *("после концерта", "во время каникул", "не сказав никому ни слова"),
        ),
        cyrillic=True,
    ),
    "zh": NeedleLanguage(
        facts=(
            ("{name} 档案馆的门禁密码是 {value}。", "用什么密码可以打开 {name} 档案馆？"),
            ("{name} 仓库的钥匙放在 {value} 号房间。", "{name} 仓库的钥匙在哪个房间？"),
            ("从 {name} 出发的末班渡轮在 {value} 开船。", "{name} 的末班渡轮几点开？"),
            ("{name} 大桥于 {value} 年通车。", "{name} 大桥是哪一年通车的？"),
            ("{name} 的大钟重 {value} 公斤。", "{name} 的大钟有多重？"),
            ("{name} 实验室的分机号是 {value}。", "怎样打电话到 {name} 实验室？"),
        ),
        sentence="{time}，{subject}{place}{action}。",
        subjects=("看门人", "一位游客", "园丁", "我们的邻居", "老师", "一位年轻画家", "守夜人", "新来的职员"),
        actions=(
            *("核对了旧名单", "读了一封长信", "修好了一把木椅", "等着其他人", "画了一张山谷的地图", "数了空箱子"),
            *("谈起了天气", "找一盏灯", "喝了一杯茶", "写下了几句从来没有人读过的话"),
        ),
        places=("在地下室", "在河边", "在二楼", "在市场后面", "在花园里", "在车站", "在老磨坊附近", "在图书馆的阅览室"),
        times=(
            "清晨",
            "午饭前",
            "一个下雨的星期二",
            "去年冬天",
            "深夜",
            "音乐会结束后",
            "假期里",
            "没有对任何人说一句话",
        ),
        joiner="",
    ),
    "ja": NeedleLanguage(
        facts=(
            ("{name} 文書館の暗証番号は {value} です。", "{name} 文書館を開ける番号は何ですか。"),
            ("{name} 倉庫の鍵は {value} 号室にあります。", "{name} 倉庫の鍵はどの部屋にありますか。"),
            ("{name} 発の最終フェリーは {value} に出ます。", "{name} からの最終フェリーは何時に出ますか。"),
            ("{name} 橋は {value} 年に開通しました。", "{name} 橋は何年に開通しましたか。"),
            ("{name} の鐘の重さは {value} キロです。", "{name} の鐘はどのくらい重いですか。"),
            ("{name} 研究所の内線は {value} 番です。", "{name} 研究所に電話するには何番ですか。"),
        ),
        sentence="{time}、{subject}は{place}{action}。",
        subjects=("管理人", "ある客", "庭師", "隣の人", "先生", "若い画家", "夜警", "新しい事務員"),
        actions=(
            *("古い名簿を確かめた", "長い手紙を読んだ", "木の椅子を直した", "ほかの人を待った", "谷の地図を描いた"),
            *("空の箱を数えた", "天気の話をした", "ランプを探した", "お茶を一杯飲んだ", "誰も読まない覚え書きを書いた"),
        ),
        places=(
            "地下室で",
            "川のそばで",
            "二階で",
            "市場の裏で",
            "庭で",
            "駅で",
            "古い水車小屋の近くで",
            "図書館の閲覧室で",
        ),
        times=("早朝", "昼食の前", "雨の火曜日", "去年の冬", "夜遅く", "演奏会の後", "休みの間", "誰にも何も言わずに"),
        joiner="",
    ),
}
