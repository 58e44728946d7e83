"""The words that behaviours are made of: names, places, nouns in pairs, cities by capital. Which of them are one token is asked of
the tokenizer at hand."""


def _split(text: str) -> list[str]:
    return text.split()


MEN = _split(
    "James John Robert Michael William David Richard Joseph Thomas Charles Christopher Daniel Matthew Anthony Mark Donald Steven "
    "Paul Andrew Joshua Kenneth Kevin Brian George Edward Ronald Timothy Jason Jeffrey Ryan Jacob Gary Nicholas Eric Jonathan "
    "Stephen Larry Justin Scott Brandon Benjamin Samuel Gregory Frank Alexander Raymond Patrick Jack Dennis Jerry Tyler Aaron "
    "Adam Henry Nathan Peter Kyle Walter Simon Luke Martin Oliver Harry Tom Tim Bob Joe Bill Jim Fred Roger Arthur Albert Carl"
)
WOMEN = _split(
    "Mary Patricia Jennifer Linda Elizabeth Barbara Susan Jessica Sarah Karen Nancy Lisa Betty Margaret Sandra Kimberly Emily "
    "Donna Michelle Carol Amanda Dorothy Melissa Deborah Stephanie Rebecca Laura Sharon Cynthia Kathleen Amy Angela Shirley Anna "
    "Ruth Brenda Pamela Nicole Katherine Samantha Christine Emma Catherine Rachel Carolyn Janet Maria Heather Diane Julie Joyce "
    "Christina Joan Evelyn Lauren Judith Olivia Martha Alice Julia Sophie Jane Kate Helen Lucy Ellen Claire Diana Charlotte"
)
PLACES = _split(
    "store park school office station hospital library garden market museum beach restaurant theater bank farm"
)
GIFTS = _split("book drink letter ring ball bag picture flower key cake map ticket basket coat present")
ROLES = _split("friend teacher doctor driver singer lawyer writer neighbor cook nurse student dancer baker painter")
PRAISE = _split("good kind clever funny careful famous honest patient brave busy")
EVENTS = _split(
    "war siege strike project trial drought voyage famine festival campaign dispute rebellion expedition marriage reform "
    "partnership investigation epidemic conflict tour occupation"
)

COUNTED = {
    "key": "keys", "book": "books", "picture": "pictures", "teacher": "teachers", "door": "doors", "car": "cars",
    "student": "students", "letter": "letters", "house": "houses", "boat": "boats", "tree": "trees", "window": "windows",
    "friend": "friends", "table": "tables", "dog": "dogs", "horse": "horses", "bottle": "bottles", "chair": "chairs",
    "doctor": "doctors", "cup": "cups",
}  # fmt: skip
"""English nouns, one and several."""
BESIDE = {
    "cabinet": "cabinets", "wall": "walls", "river": "rivers", "building": "buildings", "garden": "gardens", "box": "boxes",
    "road": "roads", "bridge": "bridges", "room": "rooms", "field": "fields",
}  # fmt: skip
"""Nouns that stand between a subject and its verb."""

FEMININE = {
    "maison": "house", "voiture": "car", "table": "table", "chaise": "chair", "porte": "door", "robe": "dress",
    "chemise": "shirt", "fleur": "flower", "plante": "plant", "bouteille": "bottle", "lampe": "lamp", "valise": "suitcase",
    "clé": "key", "jupe": "skirt", "veste": "jacket", "boîte": "box", "tasse": "cup", "assiette": "plate", "montre": "watch",
    "cuisine": "kitchen", "chambre": "room", "pomme": "apple", "poire": "pear", "feuille": "leaf", "balle": "ball",
    "fenêtre": "window", "lettre": "letter", "carte": "card", "bague": "ring", "ceinture": "belt", "cravate": "tie",
    "couverture": "blanket", "machine": "machine", "piscine": "pool", "lumière": "light", "peinture": "painting",
    "cabane": "hut", "barque": "boat", "tente": "tent", "banane": "banana", "salade": "salad", "soupe": "soup",
    "colline": "hill", "plage": "beach", "montagne": "mountain", "forêt": "forest", "rue": "street", "place": "square",
    "poupée": "doll", "guitare": "guitar", "corde": "rope", "pierre": "stone", "barrière": "gate", "serviette": "towel",
    "casquette": "cap",
}  # fmt: skip
MASCULINE = {
    "livre": "book", "chapeau": "hat", "sac": "bag", "vélo": "bike", "bateau": "ship", "jardin": "yard", "mur": "wall",
    "toit": "roof", "stylo": "pen", "cahier": "notebook", "manteau": "coat", "bureau": "desk",
    "lit": "bed", "tapis": "carpet", "rideau": "curtain", "verre": "glass", "bol": "bowl", "couteau": "knife", "arbre": "tree",
    "champ": "field", "fruit": "fruit", "oiseau": "bird", "serpent": "snake", "camion": "truck",
    "train": "train", "avion": "plane", "bus": "bus", "ballon": "balloon", "crayon": "pencil", "papier": "paper",
    "savon": "soap", "panier": "basket", "fauteuil": "armchair", "canapé": "sofa", "miroir": "mirror", "tableau": "picture",
    "téléphone": "phone", "parapluie": "umbrella", "pull": "sweater", "gilet": "vest", "bouton": "button", "ruban": "ribbon",
    "drapeau": "flag", "château": "castle", "pont": "bridge", "magasin": "shop", "jouet": "toy", "piano": "piano",
    "citron": "lemon", "melon": "melon", "fromage": "cheese", "gâteau": "cake", "seau": "bucket",
}  # fmt: skip
"""French nouns by gender, and what they are in English."""
ADJECTIVES = {
    "vert": "verte", "grand": "grande", "petit": "petite", "noir": "noire", "blanc": "blanche", "froid": "froide",
    "long": "longue", "lourd": "lourde", "ouvert": "ouverte", "vieux": "vieille", "beau": "belle", "bon": "bonne",
}  # fmt: skip
"""French, of a masculine noun and of a feminine one."""

CITIES = {
    "Paris": "Lyon Marseille Toulouse Bordeaux Nice Lille Nantes Strasbourg",
    "London": "Manchester Liverpool Birmingham Leeds Bristol Sheffield Newcastle Nottingham",
    "Berlin": "Munich Hamburg Frankfurt Cologne Stuttgart Dresden Leipzig Düsseldorf",
    "Rome": "Milan Naples Venice Florence Turin Bologna Palermo Genoa",
    "Madrid": "Barcelona Seville Valencia Bilbao Granada Zaragoza Málaga",
    "Lisbon": "Porto Braga Coimbra Faro",
    "Vienna": "Salzburg Graz Innsbruck Linz",
    "Moscow": "Novosibirsk Kazan Vladivostok Samara Sochi Omsk",
    "Beijing": "Shanghai Guangzhou Shenzhen Wuhan Chengdu Nanjing Tianjin",
    "Tokyo": "Osaka Kyoto Nagoya Hiroshima Yokohama Kobe Nagasaki Sapporo",
    "Seoul": "Busan Incheon Daegu Daejeon",
    "Cairo": "Alexandria Luxor Giza Aswan",
    "Athens": "Thessaloniki Patras Sparta Corinth",
    "Dublin": "Cork Galway Limerick Waterford",
    "Ottawa": "Toronto Montreal Vancouver Calgary Edmonton Winnipeg Halifax",
    "Canberra": "Sydney Melbourne Brisbane Perth Adelaide Darwin",
    "Washington": "Chicago Boston Houston Denver Seattle Miami Dallas Philadelphia",
    "Brussels": "Antwerp Ghent Bruges Liège",
    "Copenhagen": "Aarhus Odense Aalborg",
    "Stockholm": "Gothenburg Malmö Uppsala",
    "Oslo": "Bergen Trondheim Stavanger",
    "Helsinki": "Tampere Turku Espoo",
    "Warsaw": "Krakow Gdansk Poznan Wroclaw Lodz",
    "Prague": "Brno Ostrava Pilsen",
    "Budapest": "Debrecen Szeged Pécs",
    "Bern": "Zurich Geneva Basel Lausanne",
    "Ankara": "Istanbul Izmir Antalya Bursa",
    "Tehran": "Isfahan Shiraz Tabriz Mashhad",
    "Baghdad": "Basra Mosul Kirkuk",
    "Nairobi": "Mombasa Kisumu",
    "Lima": "Cusco Arequipa Trujillo",
    "Santiago": "Valparaíso Antofagasta",
    "Havana": "Camagüey Cienfuegos",
    "Bangkok": "Phuket Pattaya",
    "Manila": "Cebu Davao",
    "Kabul": "Kandahar Herat Jalalabad",
    "Damascus": "Aleppo Homs Latakia",
    "Kiev": "Odessa Lviv Kharkiv Donetsk",
    "Sofia": "Plovdiv Varna",
    "Jakarta": "Surabaya Bandung Medan",
}
"""By capital, other cities of its country."""
