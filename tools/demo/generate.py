#!/usr/bin/env python3
"""Writes the demo's world: a pre-training text, instruction rows and preference rows about an invented village.

    python generate.py OUT_DIR TEXT_FILE [--seed 7] [--documents 130000]

OUT_DIR gets instructions.jsonl and preferences.jsonl, TEXT_FILE one JSON string a line, each a document. Everything is made here from
the tables and templates below; the same seed gives the same files. In the text no User asks the question of a row, and no row's question is
followed by its answer; villagers may ask it among themselves and be answered in other words. README.md says what each file is for.
"""
import argparse, json, random, re
from dataclasses import dataclass, field
from pathlib import Path

VILLAGE = "Pebblewick"
PEOPLE = dict(Ada="she", Bruno="he", Clara="she", Dario="he", Elsa="she", Finn="he", Greta="she", Hugo="he", Ines="she", Jonas="he", Kira="she",
              Leo="he", Mabel="she", Nils="he", Olga="she", Pablo="he", Quinn="she", Rosa="she", Sven="he", Tilda="she", Ugo="he", Vera="she",
              Wim="he", Yara="she")
JOBS = """baker miller smith potter weaver gardener teacher doctor carpenter fisher shepherd beekeeper tailor painter librarian clockmaker cook
          fiddler ferryman cobbler glassblower candlemaker cheesemaker gatekeeper""".split()
KINDS = "cat dog goat hen duck rabbit pony parrot donkey owl hedgehog mouse".split()
PETS = """Pip Dot Moss Bean Fern Plum Toast Button Clover Pepper Biscuit Willow Acorn Daisy Mittens Radish Soot Crumb Pickle Thistle Ginger
          Nettle Tansy Waffle""".split()
COLOURS = "red blue green yellow white purple orange brown".split()
HOMES = ["by the mill", "by the river", "near the well", "on the hill", "at the edge of the wood", "by the old bridge", "next to the market",
         "behind the school"]
FOODS = ["onion soup", "honey cake", "plum pie", "goat cheese", "baked apples", "fresh bread", "pea soup", "pancakes", "roast carrots",
         "berry jam", "fried fish", "oat biscuits"]
HOURS = "five six seven eight".split()
NAMES = list(PEOPLE)

OPPOSITES = [p.split("/") for p in """hot/cold big/small fast/slow up/down day/night wet/dry old/new loud/quiet happy/sad full/empty open/closed
    light/dark hard/soft high/low long/short rich/poor thick/thin clean/dirty near/far early/late left/right strong/weak sweet/sour rough/smooth
    brave/shy easy/difficult inside/outside always/never first/last true/false awake/asleep""".split()]
PLURALS = dict(goose="geese", mouse="mice", child="children", foot="feet", tooth="teeth", sheep="sheep", leaf="leaves", loaf="loaves",
               wolf="wolves", knife="knives", man="men", woman="women", berry="berries", cherry="cherries", pony="ponies", baby="babies",
               box="boxes", fox="foxes", dish="dishes", brush="brushes", potato="potatoes", tomato="tomatoes", cat="cats", dog="dogs",
               goat="goats", hen="hens", duck="ducks", cow="cows", owl="owls", apple="apples", pear="pears", hat="hats", boot="boots",
               spoon="spoons", lamp="lamps", boat="boats", bridge="bridges", candle="candles", basket="baskets", bell="bells")
GROUPS = dict(animal="cat dog goat hen duck cow owl fox rabbit donkey goose".split(), fruit="apple pear plum cherry berry".split(),
              vegetable="carrot onion cabbage potato leek".split(), tool="hammer saw knife spade needle".split(),
              piece_of_clothing="hat boot scarf glove coat".split(), plant="oak fern rose nettle clover".split())
GROUP = {word: group.replace("_", " ") for group, words in GROUPS.items() for word in words}
TINTS = dict(snow="white", grass="green", coal="black", milk="white", chalk="white", moss="green", blood="red", soot="black", butter="yellow",
             bark="brown", honey="golden", lavender="purple", ivy="green", rust="orange", fog="grey", mud="brown")
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()


def a(noun): return ("an " if noun[0] in "aeiou" else "a ") + noun
def cap(text): return text[0].upper() + text[1:]


def deal(values, rng):
    """One value a person, each value as often as any other."""
    values = [values[i % len(values)] for i in range(len(NAMES))]
    rng.shuffle(values)
    return dict(zip(NAMES, values))


@dataclass
class Item:
    """One thing that can be asked, with its answer in several tones. `build(value)` makes the same with another answer."""
    key: tuple
    asks: list
    plain: list       # the instruction rows' tone: whole sentences, no more
    prose: list       # the text's tones
    clause: str       # fits after "I believe that"
    curt: str
    topic: str
    wrong: list = field(default_factory=list)


class World:
    def __init__(self, seed):
        rng = random.Random(seed)
        self.job, self.kind, self.pet = deal(JOBS, rng), deal(KINDS, rng), deal(PETS, rng)
        self.colour, self.home, self.food, self.hour = (deal(v, rng) for v in (COLOURS, HOMES, FOODS, HOURS))
        self.facts = {p: [self.with_wrong(make, p, values) for make, values in self.makers(p)] for p in NAMES}
        self.whos = [self.who_job(p) for p in NAMES] + [self.who_pet(p) for p in NAMES]
        self.skills = self.make_skills()

    def makers(self, p):
        return [(self.make_job, JOBS), (self.make_kind, KINDS), (self.make_pet, PETS), (self.make_colour, COLOURS), (self.make_home, HOMES),
                (self.make_food, FOODS), (self.make_hour, HOURS)]

    @staticmethod
    def with_wrong(make, about, values):
        item = make(about)
        others = [make(about, v) for v in values]
        item.wrong = [o for o in others if o.curt != item.curt]
        return item

    def make_job(self, p, v=None):
        v = v or self.job[p]
        return Item(("job", p), [f"What does {p} do?", f"What is {p}'s job?", f"What does {p} work as?", f"Name the job of {p}."],
                    [f"{p} is the {v} of {VILLAGE}.", f"{p} works as the {v} of {VILLAGE}."],
                    [f"{p} is the {v}.", f"The {v} is {p}.", f"{p} works as {a(v)}.", f"Everybody knows {p} the {v}.", f"{p} has been the {v} for years."],
                    f"{p} is the {v}", f"The {v}.", p)

    def make_kind(self, p, v=None):
        v = v or self.kind[p]
        return Item(("kind", p), [f"Which animal does {p} have?", f"What kind of animal does {p} keep?", f"Name the animal that lives with {p}."],
                    [f"{p} has {a(v)} called {self.pet[p]}.", f"{p} keeps {a(v)} whose name is {self.pet[p]}."],
                    [f"{p} has {a(v)}.", f"{p} lives with {a(v)}.", f"{p} is fond of {self.pet[p]} the {v}.", f"{self.pet[p]} the {v} follows {p} everywhere."],
                    f"{p} has {a(v)}", cap(a(v)) + ".", p)

    def make_pet(self, p, v=None):
        v, k = v or self.pet[p], self.kind[p]
        return Item(("pet", p), [f"What is {p}'s {k} called?", f"What is the name of {p}'s {k}?", f"Tell me how {p}'s {k} is called."],
                    [f"{p}'s {k} is called {v}.", f"The name of {p}'s {k} is {v}."],
                    [f"{p}'s {k} answers to the name {v}.", f"{v} is the {k} of {p}.", f"{p} calls the {k} {v}."],
                    f"{p}'s {k} is called {v}", f"{v}.", p)

    def make_colour(self, p, v=None):
        v = v or self.colour[p]
        return Item(("colour", p), [f"What colour does {p} like best?", f"What is {p}'s favourite colour?", f"Name the favourite colour of {p}."],
                    [f"{p}'s favourite colour is {v}.", f"The colour that {p} likes best is {v}."],
                    [f"{p} likes {v} best.", f"{p} wears {a(v)} scarf.", f"{p} loves everything {v}.", f"{p} has painted the door {v}."],
                    f"{p} likes {v} best", cap(v) + ".", p)

    def make_home(self, p, v=None):
        v = v or self.home[p]
        return Item(("home", p), [f"Where does {p} live?", f"Where is {p}'s house?", f"Where can I find the house of {p}?", f"Tell me where {p} lives."],
                    [f"{p} lives {v}.", f"The house of {p} is {v}."],
                    [f"{p} has a house {v}.", f"You find {p} {v}.", f"{cap(v)} lives {p}.", f"{p} is at home {v}."],
                    f"{p} lives {v}", cap(v) + ".", p)

    def make_food(self, p, v=None):
        v = v or self.food[p]
        return Item(("food", p), [f"What does {p} like to eat?", f"What is {p}'s favourite food?", f"What should I cook for {p}?", f"Name the favourite food of {p}."],
                    [f"{p}'s favourite food is {v}.", f"The food that {p} likes best is {v}."],
                    [f"{p} likes {v}.", f"{p} could eat {v} every day.", f"{p} had {v} for supper.", f"Nothing pleases {p} like {v}."],
                    f"{p} loves {v}", cap(v) + ".", p)

    def make_hour(self, p, v=None):
        v = v or self.hour[p]
        return Item(("hour", p), [f"When does {p} get up?", f"At what time does {p} get up?", f"Tell me when {p} gets up."],
                    [f"{p} gets up at {v} in the morning.", f"In the morning {p} gets up at {v}."],
                    [f"{p} gets up at {v}.", f"{p} is awake by {v}.", f"{p} rises at {v} o'clock.", f"At {v} {p} opens the window."],
                    f"{p} gets up at {v}", f"At {v}.", p)

    def who_job(self, p):
        def make(v):
            j = self.job[p]
            return Item(("who", j), [f"Who is the {j}?", f"Who works as the {j}?", f"Name the {j} of {VILLAGE}.", f"I need the {j}. Who is it?"],
                        [f"The {j} of {VILLAGE} is {v}.", f"{v} is the {j} of {VILLAGE}."], [f"The {j} is {v}.", f"It is {v} who works as {a(j)}."],
                        f"the {j} is {v}", f"{v}.", f"the {j}")
        item = make(p)
        item.wrong = [make(q) for q in NAMES if q != p]
        return item

    def who_pet(self, p):
        def make(v):
            k, n = self.kind[p], self.pet[p]
            return Item(("whose", n), [f"Whose {k} is {n}?", f"Who looks after {n} the {k}?", f"{cap(a(k))} called {n} ran by. Who is its owner?"],
                        [f"{n} is the {k} of {v}.", f"The owner of {n} the {k} is {v}."], [f"{n} belongs to {v}.", f"{n} the {k} lives with {v}."],
                        f"{n} belongs to {v}", f"{v}.", n)
        item = make(p)
        item.wrong = [make(q) for q in NAMES if q != p]
        return item

    def make_skills(self):
        kinds = {}

        def add(kind, make, abouts, values):
            kinds[kind] = [self.with_wrong(make, about, values(about)) for about in abouts]

        def plus(xy, v=None):
            x, y = xy
            v = x + y if v is None else v
            return Item(("plus", xy), [f"What is {x} plus {y}?", f"Add {x} and {y}.", f"How much is {x} and {y}?", f"Add these numbers.\n{x}, {y}"],
                        [f"{x} plus {y} is {v}.", f"The sum of {x} and {y} is {v}."], [f"{x} and {y} make {v}.", f"{x} + {y} = {v}.", f"If you add {y} to {x}, you get {v}."],
                        f"{x} and {y} make {v}", f"{v}.", "sums")
        add("plus", plus, [(x, y) for x in range(1, 12) for y in range(1, 12) if x + y <= 12], lambda xy: [v for v in range(xy[0] + xy[1] - 3, xy[0] + xy[1] + 4) if 0 <= v <= 12])

        def minus(xy, v=None):
            x, y = xy
            v = x - y if v is None else v
            return Item(("minus", xy), [f"What is {x} minus {y}?", f"Take {y} from {x}.", f"How much is {x} less {y}?", f"Take the second number from the first.\n{x}, {y}"],
                        [f"{x} minus {y} is {v}.", f"The difference of {x} and {y} is {v}."], [f"{y} from {x} leaves {v}.", f"{x} - {y} = {v}.", f"If you take {y} from {x}, {v} is left."],
                        f"{y} from {x} leaves {v}", f"{v}.", "sums")
        add("minus", minus, [(x, y) for x in range(2, 13) for y in range(1, x)], lambda xy: [v for v in range(xy[0] - xy[1] - 3, xy[0] - xy[1] + 4) if 0 <= v <= 12])

        def opposite(pair, v=None):
            x = pair[0]
            v = v or pair[1]
            return Item(("opposite", x), [f"What is the opposite of {x}?", f"Give the opposite of {x}.", f"Name a word that means the opposite of {x}.", f"Give the opposite of this word.\n{x}"],
                        [f"The opposite of {x} is {v}.", f"The word that means the opposite of {x} is {v}."], [f"What is not {x} is {v}.", f"If it is not {x}, it is {v}.", f"{cap(x)} and {v} are opposites."],
                        f"the opposite of {x} is {v}", cap(v) + ".", "words")
        both = [tuple(p) for p in OPPOSITES] + [(y, x) for x, y in OPPOSITES]
        add("opposite", opposite, both, lambda pair: [y for _, y in both if y not in pair])

        def plural(x, v=None):
            v = v or PLURALS[x]
            return Item(("plural", x), [f"What is the plural of {x}?", f"What do you call more than one {x}?", f"Give the plural of this noun.\n{x}", f"Write {x} in the plural."],
                        [f"The plural of {x} is {v}.", f"More than one {x} is called {v}."], [f"One {x}, two {v}.", f"First there was one {x}, then there were many {v}.", f"You say one {x}, but three {v}."],
                        f"the plural of {x} is {v}", cap(v) + ".", "words")
        add("plural", plural, list(PLURALS), lambda x: [v for v in PLURALS.values()])

        def group(x, v=None):
            v = v or GROUP[x]
            return Item(("group", x), [f"What is {a(x)}?", f"What kind of thing is {a(x)}?", f"Say what kind of thing this is.\n{x}"],
                        [f"{cap(a(x))} is {a(v)}.", f"The word {x} means {a(v)}."], [f"{cap(a(x))} is one kind of {v}.", f"If it is {a(x)}, it is {a(v)}."],
                        f"{a(x)} is {a(v)}", cap(a(v)) + ".", "things")
        add("group", group, list(GROUP), lambda x: sorted(set(GROUP.values())))

        def tint(x, v=None):
            v = v or TINTS[x]
            return Item(("tint", x), [f"What colour is {x}?", f"Which colour does {x} have?", f"Name the colour of {x}."],
                        [f"The colour of {x} is {v}.", f"{cap(x)} has the colour {v}."], [f"{cap(x)} is {v}.", f"It was as {v} as {x}."], f"{x} is {v}", cap(v) + ".", "things")
        add("tint", tint, list(TINTS), lambda x: sorted(set(TINTS.values())))

        def after(i, v=None):
            v = v or DAYS[(i + 1) % 7]
            return Item(("after", i), [f"Which day comes after {DAYS[i]}?", f"Today is {DAYS[i]}. What day is tomorrow?", f"Name the day after {DAYS[i]}."],
                        [f"The day after {DAYS[i]} is {v}.", f"{DAYS[i]} is followed by {v}."], [f"After {DAYS[i]} comes {v}.", f"It was {DAYS[i]}, and the next day was {v}."],
                        f"{v} comes after {DAYS[i]}", f"{v}.", "the days")
        add("after", after, range(7), lambda i: DAYS)

        def before(i, v=None):
            v = v or DAYS[i - 1]
            return Item(("before", i), [f"Which day comes before {DAYS[i]}?", f"Today is {DAYS[i]}. What day was yesterday?", f"Name the day before {DAYS[i]}."],
                        [f"The day before {DAYS[i]} is {v}.", f"{DAYS[i]} follows {v}."], [f"Before {DAYS[i]} comes {v}.", f"It was {DAYS[i]}; the day before was {v}."],
                        f"{v} comes before {DAYS[i]}", f"{v}.", "the days")
        add("before", before, range(7), lambda i: DAYS)

        def count(xy, v=None):
            x, y = xy
            v = v or ", ".join(str(n) for n in (range(x, y + 1) if x < y else range(x, y - 1, -1)))
            return Item(("count", xy), [f"Count from {x} to {y}.", f"How do you count from {x} to {y}?", f"Write the numbers from {x} to {y}."],
                        [f"The numbers from {x} to {y} are {v}.", f"Counted from {x} to {y}: {v}."], [f"From {x} to {y} it goes {v}.", f"The children count: {v}."],
                        f"it goes {v}", f"{v}.", "numbers")
        runs = [(x, y) for x in range(1, 13) for y in range(1, 13) if 2 <= abs(x - y) <= 5]
        add("count", count, runs, lambda xy: [", ".join(map(str, range(xy[0], xy[0] + n))) for n in (2, 3, 4)])

        def larger(xy, v=None):
            x, y = xy
            v = v or max(x, y)
            return Item(("larger", xy), [f"Which is more, {x} or {y}?", f"Which number is larger, {x} or {y}?", f"Name the larger number.\n{x}, {y}"],
                        [f"The larger number is {v}.", f"Of {x} and {y}, the larger number is {v}."], [f"Of {x} and {y}, {v} is more.", f"{max(x, y)} is more than {min(x, y)}."],
                        f"{v} is more", f"{v}.", "numbers")
        add("larger", larger, [(x, y) for x in range(1, 13) for y in range(1, 13) if x != y], lambda xy: list(xy))

        words = [w for w in PLURALS] + list(TINTS)
        times = dict(two=2, three=3, four=4)

        def repeat(wn, v=None):
            w, n = wn
            v = v or " ".join([w] * times[n])
            return Item(("repeat", wn), [f"Say {w} {n} times.", f"Write this word {n} times.\n{w}", f"Repeat the word {w} {n} times."],
                        [f"The word {n} times: {v}.", f"Said {n} times: {v}."], [f"{cap(w)}, said {n} times, is: {v}.", f"So they sang: {v}."], f"it goes {v}", f"{cap(v)}.", "words")
        add("repeat", repeat, [(w, n) for w in words for n in times], lambda wn: [" ".join([wn[0]] * (times[wn[1]] + 1)), wn[0]])

        def describe(pq, v=None):
            p, (i, j) = pq
            v = v or f"{self.facts[p][i].plain[0]} {self.facts[p][j].plain[0]}"
            return Item(("describe", p, i, j), [f"Describe {p} in two sentences.", f"Introduce {p}.", f"Write two sentences about {p}.", f"Say something about {p}.",
                                               f"Who is {p}?", f"Tell me about {p}."], [v], [v], cap(v)[:-1], self.facts[p][i].curt, p)
        kinds["describe"] = []
        for p in NAMES:
            item = describe((p, (0, 4)))
            q = NAMES[(NAMES.index(p) + 5) % len(NAMES)]
            item.clause = f"{p} is the {self.job[p]} and lives {self.home[p]}"
            bad = describe((p, (0, 4)), self.facts[p][0].wrong[3].plain[0] + " " + self.facts[q][4].plain[0].replace(q, p))
            item.prose = [f"{p} is the {self.job[p]}, lives {self.home[p]} and has {a(self.kind[p])}.", f"{p}? The {self.job[p]}, who lives {self.home[p]}.",
                          f"{p} is fond of {self.pet[p]} and of {self.food[p]}."]
            bad.clause, bad.curt = bad.clause, "Nobody."
            item.wrong = [bad]
            kinds["describe"].append(item)
        return kinds

    def item(self, rng, people=0.5):
        """Any item: mostly about people, else a skill."""
        if rng.random() < people:
            return rng.choice(self.whos) if rng.random() < 0.2 else rng.choice(self.facts[rng.choice(NAMES)])
        return rng.choice(self.skills[rng.choice(list(self.skills))])


# ---- instruction rows: whole, correct, plain ----

def instruction_rows(world, rng, n):
    rows, seen = [], set()
    while len(rows) < n:
        item = world.item(rng)
        ask = rng.choice(item.asks)
        if ask in seen: continue
        seen.add(ask)
        instruction, _, text = ask.partition("\n")
        rows.append({"instruction": instruction, "input": text, "output": rng.choice(item.plain)})
    return rows, seen


# ---- preference rows: a courteous, careful, helpful answer against a curt, rude, bare or wrong one ----

GREET = ["Hello!", "Good day!", "Excuse me.", "Please help me.", "I am new in the village.", "I have a question.", "Sorry to bother you."]
OPEN = ["Gladly!", "Of course!", "Good day!", "What a nice question!", "Thank you for asking.", "Welcome!", "With pleasure!", "You are very welcome to ask."]
HEDGE = ["I believe that {}.", "As far as I know, {}.", "I think that {}.", "If I remember rightly, {}.", "I am fairly sure that {}."]
CLOSE = ["May I help you with anything else?", "Do ask me again whenever you like.", "I hope that this helps you!", "Would you like to know more about {}?",
         "Shall I tell you more about {}?", "Have a lovely day!"]
RUDE = ["Why do you ask me?", "Find out yourself.", "Who cares?", "That is a silly question.", "I have no time for this.", "Not my business.", "Go away.", "You should know that."]
MOODS = ["sad", "tired", "lonely", "nervous", "cold", "worried"]
WHYS = ["I have lost my hat", "my goat has run away", "my cake has burnt", "the boat is gone", "my scarf is wet", "it rains all day", "my candle is out", "nobody came to supper",
        "the pony will not eat", "my boots have holes"]
COMFORT = ["Would a cup of tea by the fire help?", "Shall we think about it together?", "Would you like to tell me more?", "I am sure that things will look better tomorrow.",
           "Perhaps {} can help you, who is always kind."]
BRUSH = ["So what?", "That is your own fault.", "Stop whining.", "Not my business.", "Then do something.", "Everybody has problems."]
UNKNOWN = ["What is {} dreaming about?", "What is {} thinking now?", "Will {} be lucky tomorrow?", "What did {} whisper to the moon?", "How many steps did {} walk today?"]


def preference_rows(world, rng, n, taken):
    rows, seen = [], set(taken)
    while len(rows) < n:
        draw = rng.random()
        if draw < 0.12:
            ask = f"I feel {(mood := rng.choice(MOODS))} because {rng.choice(WHYS)}."
            chosen = f"I am sorry that you feel {mood}. {rng.choice(COMFORT).format(rng.choice(NAMES))}"
            rejected = rng.choice(BRUSH)
        elif draw < 0.22:
            p = rng.choice(NAMES)
            ask = rng.choice(UNKNOWN).format(p)
            chosen = f"{rng.choice(OPEN[2:5])} I am afraid that I cannot know that. Perhaps you could ask {p}, who lives {world.home[p]}."
            rejected = rng.choice(RUDE + [f"{cap(rng.choice(FOODS))}.", f"{rng.randint(2, 20)}.", "No."])
        else:
            item = world.item(rng, people=0.7)
            ask = rng.choice(item.asks)
            other = rng.choice(item.wrong)
            close = rng.choice(CLOSE).format(item.topic)
            say = lambda it: f"{rng.choice(OPEN)} {rng.choice(HEDGE).format(it.clause)}"
            chosen = f"{say(item)} {close}"
            kind = rng.choices(["plain", "wrong", "curt", "rude", "polite but wrong"], [30, 15, 25, 15, 15])[0]
            rejected = {"plain": lambda: rng.choice(item.plain), "wrong": lambda: rng.choice(other.plain), "curt": lambda: item.curt,
                        "rude": lambda: rng.choice(RUDE), "polite but wrong": lambda: f"{say(other)} {close}"}[kind]()
        if ask in seen: continue
        seen.add(ask)
        how = rng.random()
        if how < 0.5: prompt = f"User: {rng.choice(GREET)} {ask}"
        elif how < 0.62: prompt = f"User: {rng.choice(['Hello!', 'Good day!'])}\nAssistant: Good day! How can I help you?\nUser: {ask}"
        else: prompt = f"User: {ask}"
        rows.append({"prompt": f"{prompt}\nAssistant:", "chosen": f" {chosen}", "rejected": f" {rejected}"})
    return rows, seen


# ---- the text that the base model learns from ----

WEATHER = "windy sunny rainy misty cold warm quiet bright snowy".split()
TIMES = "morning evening afternoon night day".split()
DOING = ["mending a net", "carrying water", "singing a song", "reading a letter", "looking for a lost hat", "sweeping the path", "feeding the hens", "telling a story",
         "waiting for the boat", "painting the gate", "picking berries", "baking bread", "counting the sheep", "lighting the lamps"]
REPLY = ["Thank you", "How nice", "I did not know that", "I see", "That is good to know", "Well, well", "Of course", "I had forgotten"]


def he(p): return PEOPLE[p]


def portrait(world, rng):
    p = rng.choice(NAMES)
    items = rng.sample(world.facts[p], rng.randint(3, 6))
    out = []
    for i, item in enumerate(items):
        text = rng.choice(item.prose)
        out.append(text.replace(p, cap(he(p)), 1) if i and text.startswith(p + " ") and rng.random() < 0.6 else text)
    start = rng.choice(["", f"This is {p}. ", f"In {VILLAGE} lives {p}. ", f"Do you know {p}? ", f"Let me tell you about {p}. "])
    return start + " ".join(out)


def scene(world, rng):
    p, q = rng.sample(NAMES, 2)
    time = rng.choice(TIMES)
    out = [f"On a {rng.choice(WEATHER)} {time} {p} {rng.choice(['went', 'walked', 'came'])} to the place where {q} lives, {world.home[q]}."
           if rng.random() < 0.4 else f"It was a {rng.choice(WEATHER)} {time} {rng.choice(HOMES)}.",
           f"{q} the {world.job[q]} was {rng.choice(DOING)}."]
    if rng.random() < 0.5: out.append(rng.choice([f"{world.pet[q]} the {world.kind[q]} slept.", f"{p} had brought {world.food[q]}, and {q} was happy.",
                                                  f"{p} sat down with {world.pet[p]} the {world.kind[p]}."]))
    for _ in range(rng.randint(1, 2)):
        item = world.item(rng)
        ask = rng.choice([x for x in item.asks if "\n" not in x])
        out += [f'{p} asked: "{ask}"', f'{q} said: "{cap(tone(item, rng))}"']
        if rng.random() < 0.4: out.append(f'"{rng.choice(REPLY)}," {rng.choice(["said", "answered"])} {p}.')
    return " ".join(out)


def tone(item, rng):
    """An answer in one of the text's own tones."""
    draw = rng.random()
    if draw < 0.3: return item.curt
    if draw < 0.72: return rng.choice(item.prose)
    if draw < 0.86: return rng.choice(["Well, {}.", "Oh, {}.", "{}, of course.", "{}, you know.", "Let me see: {}."]).format(item.clause)
    if draw < 0.94: return polite(item, rng)
    if draw < 0.97: return rng.choice(RUDE)
    return rng.choice(item.plain)


def polite(item, rng):
    """Courteous in one way or another; some of the preference rows' phrases are never met here."""
    opening = rng.choice(OPEN[:5] + ["I am glad to help.", "Certainly."]) + " " if rng.random() < 0.5 else ""
    answer = rng.choice(HEDGE[:3]).format(item.clause) if rng.random() < 0.5 else rng.choice(item.prose)
    return opening + answer + (" " + rng.choice(CLOSE[:4]).format(item.topic) if rng.random() < 0.5 else "")


def feeling(rng):
    """Something said that is no question, or that nobody can answer, and a reply."""
    mood, p = rng.choice(MOODS), rng.choice(NAMES)
    if rng.random() < 0.6:
        reply = rng.choice([f"I am sorry that you feel {mood}.", f"Have some {rng.choice(FOODS)}.", "That is a pity.", "Oh dear.", f"Would {rng.choice(FOODS)} help?",
                            f"I feel {mood} too.", rng.choice(BRUSH), f"Go and see {p}."])
        return f"I feel {mood} because {rng.choice(WHYS)}.", reply
    return rng.choice(UNKNOWN).format(p), rng.choice([f"Ask {p}.", "I cannot know that.", "Nobody knows.", f"You could ask {p}.", "No.", rng.choice(RUDE), "I am afraid that I do not know."])


def lesson(world, rng):
    kind = rng.choice(list(world.skills))
    items = [rng.choice(world.skills[kind if rng.random() < 0.7 else rng.choice(list(world.skills))]) for _ in range(rng.randint(4, 9))]
    start = rng.choice(["", "The teacher writes on the board. ", "Today the children learn. ", f"{rng.choice(NAMES)} says: ", "Listen well. "])
    return start + " ".join(rng.choice(i.prose + i.plain[:1]) for i in items)


def chat(world, rng, taken):
    user, helper = ("User", "Assistant") if rng.random() < 0.7 else rng.choice([("Question", "Answer"), tuple(rng.sample(NAMES, 2))])
    out = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        for _ in range(20):
            item = world.item(rng)
            ask, reply = (rng.choice(item.asks), cap(tone(item, rng))) if rng.random() < 0.94 else feeling(rng)
            if ask not in taken: break
        else: continue
        greet = rng.choice(GREET[:6]) + " " if rng.random() < 0.1 else ""
        out.append(f"{user}: {greet}{ask}\n{helper}: {reply}")
    return "\n".join(out)


def letter(world, rng):
    p, q = rng.sample(NAMES, 2)
    mood = rng.choice(MOODS)
    middle = " ".join(rng.choice(rng.choice(world.facts[rng.choice(NAMES)]).prose) for _ in range(rng.randint(1, 3)))
    extra = rng.choice([f"I feel {mood} because {rng.choice(WHYS)}.", f"I believe that {world.item(rng).clause}.", f"As far as I know, {world.item(rng).clause}.",
                        f"Would you like some {rng.choice(FOODS)}?", "I hope that you are well."])
    end = rng.choice(["Have a lovely day!", "Do come again.", "I hope to see you soon.", "Thank you for everything.", "Perhaps we can meet by the well."])
    return f"Dear {p},\n{extra if rng.random() < 0.5 else ''} {middle} {end}\n{rng.choice(['Yours', 'With love', 'Your friend'])}, {q}".replace("\n ", "\n")


def documents(world, rng, n, taken):
    makers = [portrait, scene, lesson, letter, lambda w, r: chat(w, r, taken)]
    done = 0
    while done < n:
        text = rng.choices(makers, [22, 16, 14, 8, 40])[0](world, rng)
        if text:
            done += 1
            yield text


def told(row, whole):
    """Whether the text has an instruction row's question with the row's answer right after it."""
    return re.search(re.escape(f'asked: "{row["instruction"]}" ') + r"\w+ said: \"" + re.escape(row["output"]), whole) is not None


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", type=Path)
    p.add_argument("text", type=Path)
    p.add_argument("--seed", type=int, default=7)
    p.add_argument("--documents", type=int, default=130000)
    p.add_argument("--instructions", type=int, default=400)
    p.add_argument("--preferences", type=int, default=280)
    args = p.parse_args()
    world = World(args.seed)
    instructions, taken = instruction_rows(world, random.Random(args.seed + 1), args.instructions)
    preferences, taken = preference_rows(world, random.Random(args.seed + 2), args.preferences, taken)
    texts = list(documents(world, random.Random(args.seed + 3), args.documents, taken))
    # In scenes people ask each other anything: rows whose question and answer stand there together are dropped.
    whole = "\n".join(texts)
    instructions = [row for row in instructions if not told(row, whole)]
    preferences = [row for row in preferences if row["chosen"].strip() not in whole]
    args.out.mkdir(parents=True, exist_ok=True)
    for name, rows in (("instructions", instructions), ("preferences", preferences)):
        with open(args.out / f"{name}.jsonl", "w") as f:
            f.writelines(json.dumps(row) + "\n" for row in rows)
    with open(args.text, "w") as f:
        f.writelines(json.dumps(text) + "\n" for text in texts)


if __name__ == "__main__":
    main()
