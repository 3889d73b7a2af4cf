"""Instructions for SmolLM2 to answer while it writes its draft model's training text: a small grammar of our own.

Six kinds: chat, summarise, edit, code, list, story. Each is a choice of phrasing times a choice of subjects; the
passages to summarise or edit are earlier answers of the model itself, or sentences assembled here while there are none.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random

KINDS = ("chat", "summarise", "edit", "code", "list", "story")

SUBJECTS = """photosynthesis|black holes|the water cycle|plate tectonics|vaccines|antibiotics|the immune system|DNA
evolution|gravity|electricity|magnetism|nuclear energy|solar panels|wind turbines|batteries|electric cars
the internet|search engines|encryption|machine learning|neural networks|databases|operating systems|compilers
computer viruses|cloud computing|robots|3D printing|drones|the Roman Empire|ancient Egypt|the Silk Road
the Renaissance|the French Revolution|the Industrial Revolution|the Cold War|the Vikings|the Olympic Games
the printing press|the Great Wall of China|the Moon landing|the Black Death|the Ottoman Empire|feudal Japan
democracy|inflation|interest rates|the stock market|supply and demand|taxes|insurance|mortgages|globalisation
trade unions|sleep|meditation|yoga|running|swimming|strength training|healthy eating|vitamins|stress|headaches
allergies|first aid|sunscreen|coffee|tea|bread|cheese|chocolate|rice|olive oil|honey|spices|fermentation|pasta|soup
breakfast|vegetarian food|street food|gardening|composting|houseplants|bees|birds|whales|sharks|wolves|cats|dogs
horses|elephants|octopuses|ants|butterflies|dinosaurs|volcanoes|earthquakes|hurricanes|glaciers|deserts|rainforests
coral reefs|rivers|the ocean|climate change|recycling|the ozone layer|painting|photography|sculpture|jazz|opera
the piano|the guitar|the violin|theatre|ballet|film making|poetry|novels|comic books|chess|football|basketball
tennis|cycling|climbing|sailing|skiing|board games|crossword puzzles|video games|origami|knitting|pottery
public speaking|job interviews|time management|teamwork|leadership|negotiation|writing a resume|learning a language
note taking|friendship|parenting|kindness|honesty|patience|creativity|curiosity|motivation|procrastination
happiness|memory|dreams|habits|Mars|Jupiter|Saturn|comets|telescopes|satellites|rockets|the Sun|the Moon|galaxies
atoms|light|sound|heat|water|air|metals|glass|bridges|skyscrapers|trains|airplanes|ships|bicycles|maps|clocks
calendars|money|libraries|museums|schools|hospitals|cities|farms|probability|prime numbers|fractions|algebra
geometry|statistics|logic|philosophy|psychology|ethics|grammar|history|geography"""

PLACES = """Paris|London|Rome|Berlin|Madrid|Lisbon|Vienna|Prague|Athens|Istanbul|Cairo|Nairobi|Cape Town|Lagos
Delhi|Mumbai|Tokyo|Kyoto|Seoul|Beijing|Bangkok|Hanoi|Jakarta|Sydney|Auckland|Toronto|Vancouver|New York|Chicago
San Francisco|Mexico City|Lima|Buenos Aires|Rio de Janeiro|Bogota|Reykjavik|Oslo|Stockholm|Helsinki|Dublin
Edinburgh|Amsterdam|Brussels|Zurich|Venice|Barcelona"""

COUNTRIES = """France|Germany|Italy|Spain|Portugal|Greece|Turkey|Egypt|Kenya|South Africa|Nigeria|India|China|Japan
South Korea|Thailand|Vietnam|Indonesia|Australia|New Zealand|Canada|Mexico|Peru|Argentina|Brazil|Chile|Colombia
Iceland|Norway|Sweden|Finland|Ireland|Poland|Austria|Hungary|Switzerland|Belgium|Denmark|Morocco|Ethiopia|Pakistan
Nepal|Mongolia|Cuba|Ukraine"""

QUESTIONS = """What is {s}?|What are the main facts about {s}?|Can you explain {s} in simple terms?
Explain {s} to a ten year old.|Why is {s} important?|How does {s} affect our daily life?
What should a beginner know about {s}?|Tell me something interesting about {s}.
What are the advantages and disadvantages of {s}?|How has our understanding of {s} changed over time?
What is the history of {s}?|I have to give a short talk about {s}. What should I say?
What is a common misconception about {s}?|How are {s} and {t} related?|What is the difference between {s} and {t}?
Compare {s} with {t}.|Which is more useful to study, {s} or {t}, and why?|Give me a short introduction to {s}.
Describe {s} in one paragraph.|What would the world be like without {s}?
I am curious about {s}. Where should I start?|My teacher asked me about {s}. How do I answer?
Write a short paragraph about {s}.|How do I get started with {s}?|What questions do people often ask about {s}?
Give me three facts about {s}.|Who first studied {s}?|What can I learn from {s}?
How would you teach {s} to a class of children?|Is {s} good or bad for people?|Define {s}.
Could you help me understand {s} better?|What role does {s} play in science?|What is the future of {s}?
Why do people like {s}?|What is the capital of {c}?|What language do people speak in {c}?
What is the weather like in {p} in {m}?|Plan a day in {p}.|What is {c} famous for?|What food should I try in {c}?
How do I get around in {p}?|Is {p} a good place to live?|I am visiting {p} with my {f}. What should we do?
What is the best time of the year to visit {c}?|Tell me about the culture of {c}.
How many days should I spend in {p}?|Hi! I am planning a trip to {c}. Can you give me some advice?
What is {a} plus {b}?|What is {a} times {b}?|If I have {a} apples and give away {b}, how many are left?
How do I convert {a} kilometres to miles?|A train travels {a} km in {b} hours. How fast is it?
How do I calculate {b} percent of {a}?|Is {a} a prime number?|How do I stay motivated when learning about {s}?
What is your opinion on {s}?|Hello, who are you and can you tell me about {s}?
My {f} is afraid of {s}. What can I do?|My {f} loves {s}. What gift should I buy?
How can I improve my knowledge of {s}?|What are the basic steps to work with {s}?|What tools do I need for {s}?
How long does it take to learn about {s}?|Can {s} be dangerous?
What does a typical day look like for someone who works with {s}?|Answer in two sentences: what is {s}?"""

SUMMARISE = """Summarize the following text:\\n\\n{x}|Summarize this paragraph in one sentence:\\n\\n{x}
{x}\\n\\nSummarize the text above.|Give a short summary of this passage:\\n{x}|Please summarise: {x}
TL;DR of the following:\\n\\n{x}|What is the main idea of this text?\\n\\n{x}
Summarize the key points of the text below.\\n\\n{x}
Read the passage and write a two sentence summary.\\n\\nPassage: {x}|Condense this text into a few words:\\n\\n{x}
Summarize in your own words: "{x}"|Write a brief summary of the following article:\\n\\n{x}|Text: {x}\\n\\nSummary:
List the key points of this passage:\\n\\n{x}|In one sentence, what does this text say?\\n\\n{x}"""

EDIT = """Rewrite the following text in a more formal tone:\\n\\n{x}|Rewrite this to be more concise:\\n\\n{x}
Correct the spelling and grammar of this text:\\n\\n{x}|Make this text friendlier:\\n\\n{x}
Rewrite this in simple words:\\n\\n{x}|Rewrite the text in the past tense:\\n\\n{x}
Paraphrase the following paragraph:\\n\\n{x}|Improve the style of this text: {x}
Edit this paragraph so that it is easier to read:\\n\\n{x}|Turn this text into an email:\\n\\n{x}
Proofread this:\\n\\n{x}|Rewrite the following text as a list:\\n\\n{x}
Repeat the text below, but replace "{w}" with "{v}":\\n\\n{x}
Fix the mistakes in this text and return the corrected text.\\n\\n{x}|Rewrite this in the first person:\\n\\n{x}
Copy the following text exactly:\\n\\n{x}|Make the following text more exciting:\\n\\n{x}
Rewrite this for a child:\\n\\n{x}|Rewrite the following sentence: {x}|Shorten the text below:\\n\\n{x}
Change the tone of this message to be polite:\\n\\n{x}"""

CODE = """Write a Python function that {k}.|Write a function in {l} that {k}.
How do I write a {l} program that {k}?|Give me {l} code that {k}.
Implement a {l} function that {k}, and explain it.|Write a short {l} script that {k}.
Can you write a Python function which {k}? Add a docstring.
Write a {l} function that {k}. Include an example of its use.|I need a {l} function that {k}.
Write Python code that {k} without using any library.|Write a test for a {l} function that {k}.
Write a Python class for a {o} with methods to add, remove and print.|Write a {l} class that represents a {o}.
Explain what a {d} is in {l}, with an example.|What is the difference between a {d} and a {e} in Python?
Write an SQL query that selects all rows of the table {o}s where the price is above {a}.|How do I use a {d} in {l}?
Write an HTML page with a title and a list of {o}s.|Show me how to read a file of {o}s in {l}.
Debug this: my {l} {d} does not work."""

TASKS = """reverses a string|checks whether a string is a palindrome|computes the factorial of a number
finds the largest number in a list|sorts a list of numbers|removes duplicates from a list
counts the vowels in a string|computes the Fibonacci sequence up to n|checks whether a number is prime
sums the digits of a number|merges two sorted lists|finds the second largest element of a list
counts how often each word occurs in a text|converts Celsius to Fahrenheit|computes the average of a list
flattens a nested list|finds the longest word in a sentence|checks whether two strings are anagrams
computes the greatest common divisor of two numbers|generates a random password|validates an email address
reads a CSV file and prints the rows|writes a list of names to a file|downloads a web page
prints a multiplication table|transposes a matrix|multiplies two matrices|rotates a list by k places
finds all pairs that add up to a target|performs a binary search|performs a bubble sort|performs a quick sort
performs a merge sort|traverses a binary tree|reverses a linked list|implements a stack|implements a queue
counts the lines of a file|counts down from ten|converts a number to binary|converts a Roman numeral to an integer
capitalises every word of a sentence|checks a leap year|computes the area of a circle
prints the first n even numbers|splits a list into chunks|finds the common elements of two lists
plays rock, paper, scissors|plays a number guessing game|simulates rolling two dice|keeps a to-do list
computes compound interest|replaces spaces by underscores|parses a date|computes the distance between two points
computes a running total|groups words by length|finds the missing number in a sequence|swaps two variables
computes the power of a number|filters the odd numbers out of a list"""

LANGUAGES = "Python|Python|Python|Python|JavaScript|Java|C|C++|Rust|Go|TypeScript|Ruby|Bash"
OBJECTS = "book|student|bank account|car|shopping cart|employee|library|playlist|recipe|ticket|product|game|pet|city"
CONCEPTS = "list|tuple|dictionary|set|loop|function|class|generator|decorator|variable|string|recursion|lambda|module"

LISTS = """List {n} facts about {s}.|List {n} tips for {s}.|Give me {n} ideas related to {s}.
Name {n} things to do in {p}.|Write a list of {n} questions about {s}.|What are {n} benefits of {s}?
List the steps to learn about {s}.|Name {n} cities in {c}.|List {n} famous people connected with {s}.
Make a packing list for a trip to {p} in {m}.|List {n} healthy snacks for my {f}.
Give me {n} names for a {o} about {s}.|Make a shopping list for a dinner with food from {c}.
List {n} animals that live in {c}.|Create a weekly plan to learn {s}.|List {n} synonyms of the word "{w}".
Write {n} short slogans about {s}.|List {n} reasons to visit {c}.
Give me {n} example sentences with the word "{w}".|Rank {n} things people should know about {s}.
List the pros and cons of {s}.|Create a numbered list of {n} items about {s} and {t}.|Give me a checklist for {s}.
Write {n} quiz questions about {s} with answers.|Suggest {n} titles for an essay on {s}.|Name {n} books about {s}.
List the ingredients and steps of a simple recipe from {c}."""

STORIES = """Write a short story about {h} who {g}.|Tell me a story about {h} in {p}.
Write a story that begins with: "{b0}"|Write a bedtime story about {h} and {i}.
Write a short story about {h} who {g} in {p}.|Write a poem about {s}.|Write a haiku about {s}.
Continue this story: {b0}|Write a dialogue between {h} and {i} about {s}.|Write a funny story about {h} who {g}.
Write the opening paragraph of a novel set in {p}.|Invent a legend that explains {s}.
Write a letter from {h} to {i}.|Tell a story for children with {h}, {i} and a happy ending.
Write a mystery story about {h} and a lost {o}.|Write a song about {s}.
Describe {p} at night through the eyes of {h}.|Write a diary entry of {h} who {g}.
Tell me a short fable about {h} and {i}."""

HEROES = """a young girl|an old fisherman|a lonely robot|a brave mouse|a curious cat|a tired king|a clever fox
a shy dragon|a lost astronaut|a retired detective|a small elephant|a baker|a violinist|a lighthouse keeper
a clockmaker|a wandering knight|a talking tree|a librarian|a street painter|a pair of twins|a time traveller
a sleepy bear|a young wizard|a farmer|a pirate captain|a scientist|a nurse|a snowman"""
GOALS = """finds a hidden door|loses a precious ring|learns to fly|makes an unusual friend|discovers an old map
must cross a desert|wants to win a race|hears a strange sound at night|receives a letter from the future
saves the village from a flood|opens a tea shop|builds a boat|gets lost in a forest|learns to tell the truth
meets a ghost|repairs a broken star|has to keep a secret|travels to the Moon|plants a magic seed
forgets how to sleep|teaches a machine to sing|finds a key without a lock|climbs the highest mountain"""
OPENINGS = """It was raining when the train finally arrived.|Nobody had opened the red box for a hundred years.
The map was wrong.|On the last day of summer, the sea was quiet.
Once upon a time, there was a village without clocks.|The phone rang at midnight.
The robot looked at the flower for a long time.|She had never seen snow before.|The old bridge began to sing.
We should not be here."""

MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
FAMILY = "brother|sister|mother|father|grandmother|son|daughter|friend|neighbour|children|parents|dog|colleague|teacher"
WORDS = (
    "people|time|world|important|good|great|new|work|day|life|water|small|happy|quick|house|city|help|strong|light|big"
)


def _pick(rng: Random, choices: str) -> str:
    return rng.choice([choice for line in choices.split("\n") for choice in line.split("|")])


def _fill(rng: Random, phrasing: str, passage: str = "") -> str:
    """Put a random subject into every field of a phrasing; the letters are those used in the tables above."""
    return phrasing.replace("\\n", "\n").format(
        s=_pick(rng, SUBJECTS),
        t=_pick(rng, SUBJECTS),
        c=_pick(rng, COUNTRIES),
        p=_pick(rng, PLACES),
        m=_pick(rng, MONTHS),
        f=_pick(rng, FAMILY),
        a=rng.randint(10, 99),
        b=rng.randint(2, 9),
        n=rng.randint(3, 10),
        k=_pick(rng, TASKS),
        l=_pick(rng, LANGUAGES),
        o=_pick(rng, OBJECTS),
        d=_pick(rng, CONCEPTS),
        e=_pick(rng, CONCEPTS),
        h=_pick(rng, HEROES),
        i=_pick(rng, HEROES),
        g=_pick(rng, GOALS),
        b0=_pick(rng, OPENINGS),
        w=_pick(rng, WORDS),
        v=_pick(rng, WORDS),
        x=passage,
    )


def assembled_passage(rng: Random) -> str:
    """Three to five plain sentences about random subjects, for the time before the model has written any."""
    sentences = (
        "{s} has changed the way people think about {t}.",
        "In {c}, many families talk about {s} every day.",
        "A new museum in {p} opened in {m} and shows the history of {s}.",
        "{h} once said that {s} needs patience.",
        "Experts in {p} found {n} reasons why {s} matters.",
        "The report says that {a} percent of the visitors like {s}.",
        "Last {m}, a group from {p} started a project about {s}.",
        "It costs {a} dollars and takes about {b} hours.",
        "Without {s}, the people of {c} would miss {t}.",
        "My {f} wrote a book on {s}, and it sold well in {c}.",
    )
    chosen = [_fill(rng, sentence) for sentence in rng.sample(sentences, rng.randint(3, 5))]
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in chosen)


def instruction(rng: Random, kind: str, passages: list[str]) -> str:
    """One instruction of a kind; passages are earlier answers of the model to summarise or edit."""
    if kind in ("summarise", "edit"):
        passage = rng.choice(passages) if passages and rng.random() < 0.85 else assembled_passage(rng)
        return _fill(rng, _pick(rng, SUMMARISE if kind == "summarise" else EDIT), passage)
    return _fill(rng, _pick(rng, {"chat": QUESTIONS, "code": CODE, "list": LISTS, "story": STORIES}[kind]))


def is_held_out(turn: str) -> bool:
    """Whether a user's turn is kept out of training: about one in 24."""
    return hashlib.sha256(turn.strip().encode()).digest()[0] % 24 == 0


def more_prompts(
    count: int, seed: int = 80, kinds: Sequence[str] = KINDS, held_out: bool = False
) -> list[dict[str, str]]:
    """Prompts of these kinds in turn, as lines of a prompt file; the same for the same arguments.

    held_out: only such as `is_held_out` keeps out of training.
    """
    rng = Random(seed)
    found: list[dict[str, str]] = []
    while len(found) < count:
        kind = kinds[len(found) % len(kinds)]
        prompt = instruction(rng, kind, [])
        if not held_out or is_held_out(prompt):
            found.append({"kind": kind, "prompt": prompt})
    return found


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m backend.train.smollm2_prompts", description="Write prompts.")
    parser.add_argument("out", type=Path, help="JSONL file, such as assets/prompts-more.jsonl")
    parser.add_argument("--count", type=int, default=80)
    parser.add_argument("--seed", type=int, default=80)
    parser.add_argument("--kinds", default=",".join(KINDS), help="comma-separated")
    parser.add_argument("--held-out", action="store_true", help="only prompts that no training uses")
    args = parser.parse_args(argv)
    found = more_prompts(args.count, args.seed, args.kinds.split(","), args.held_out)
    lines = [json.dumps(line, ensure_ascii=False) for line in found]
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
