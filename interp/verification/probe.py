"""The text that every checkpoint is tried on: written for this purpose, of many kinds, the same everywhere.

A change of the text is a new VERSION; a checkpoint says which one its stored numbers are of, and keeps the token ids,
so that a tokenizer that cuts the text otherwise is noticed before anything is computed. A model of pictures or sound is tried
on noise (`Media.sample`), which any of them reads and no package has to bring.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from interp.models import Model

VERSION = 1
NOISE = 8
"""Pictures or clips of noise."""
TEXTS = (
    "The harbour of Lisbon lies on the north bank of the Tagus, a few miles from the Atlantic Ocean. Ships from Venice and "
    "Bruges once unloaded glass and cloth here, and left with pepper, sugar and salt. On 1 November 1755 an earthquake, a "
    "wave and five days of fire destroyed most of the city; the streets behind the river were then laid out as a grid.",
    "def median(values):\n    \"\"\"The middle value, or the mean of the two middle ones.\"\"\"\n    ordered = sorted(values)\n"
    "    if not ordered:\n        raise ValueError('no values')\n    half, odd = divmod(len(ordered), 2)\n"
    "    return ordered[half] if odd else (ordered[half - 1] + ordered[half]) / 2\n\n\nclass Queue:\n"
    "    def __init__(self, size=16):\n        self.items = [None] * size\n        self.head = self.count = 0\n",
    "\u201cWhere have you put the key?\u201d she asked. He shrugged. \u201cI gave it to Peter on Monday, and Peter, as you know, "
    "never gives anything back.\u201d They waited in the cold for another ten minutes, saying nothing, until the neighbour's dog "
    "began to bark and a light went on upstairs.",
    "La Loire prend sa source au mont Gerbier-de-Jonc et se jette dans l'Atlantique après mille kilomètres. Les châteaux de "
    "la Renaissance bordent ses rives entre Orléans et Angers; au printemps, ses crues inondaient autrefois les villages.",
    "El telescopio se construyó en lo alto de la montaña porque el aire es seco y las noches son claras. Cada año, cientos "
    "de astrónomos piden unas horas de observación, y solo una de cada cinco solicitudes es aceptada.",
    "Water boils at 100 °C at sea level, but at about 71 °C on the summit of Mount Everest, where the pressure is a third as "
    "high. A cell divides into two; its DNA is copied once, with roughly one error in a billion letters. Light needs eight "
    "minutes and twenty seconds from the Sun to the Earth. Therefore 3 x 8 = 24, and 24 / 6 = 4.",
    "<ul>\n  <li><a href=\"/news?id=42\">Budget passed, 51 to 49</a></li>\n  <li>Rain until Friday</li>\n</ul>\n"
    "{\"name\": \"Ada\", \"age\": 36, \"tags\": [\"maths\", \"poetry\"], \"active\": true}\n"
    "SELECT city, COUNT(*) FROM orders WHERE total > 20.50 GROUP BY city ORDER BY 2 DESC;",
    "Dear Ms Okafor, thank you for your order of 12 March. Unfortunately the blue lamp is out of stock, and we expect new ones "
    "in three weeks. You may wait, choose another colour, or have your money back; please tell us which you prefer. "
    "Yours sincerely, the customer service team.",
    "The team lost 3-1 at home, although the goalkeeper saved a penalty in the first half. Shares of the company fell by 4.7 "
    "percent on Tuesday after it cut its forecast. The court will hear the appeal in January; neither lawyer would comment.",
    "Mix the flour, a pinch of salt and two eggs, then add the milk slowly until the batter is smooth. Let it rest for half "
    "an hour. Heat a little butter in the pan, pour in one ladle at a time, and turn each pancake once. Serve with lemon "
    "and sugar, or with stewed apples.",
)  # fmt: skip


def probe_blocks(model: Model, block: int) -> Int[Tensor, "N T"]:
    """The texts as this model's tokenizer cuts them, in blocks as in training: separator, then texts between separators; of
    pictures and sound the places of so many items of noise."""
    if model.media is not None:
        return model.media.sample(NOISE)[0]
    stream: list[int] = []
    for text in TEXTS:
        stream += [*model.tokenize(text), model.separator]
    rows = len(stream) // (block - 1) or 1
    stream = (stream + [model.separator] * block)[: rows * (block - 1)]
    body = torch.tensor(stream).reshape(rows, block - 1)
    return torch.cat([torch.full((rows, 1), model.separator), body], 1)
