"""The words and sentences that synthetic users are made of."""

from __future__ import annotations


def words(text: str) -> tuple[str, ...]:
    """An inventory written as `one|two|three`."""
    return tuple(part.strip() for part in text.split("|"))


# --- plain sentences: templates whose {slots} are filled from the inventories below

TEMPLATES = words(
    "I am going to {do} with {who} {when}.|"
    "{who} and I are going to {do} {when}.|"
    "{who} made {dish} and it was {very} {tasty}.|"
    "the {thing} at {place} was {very} {quality} {when_past}.|"
    "I really love the {thing} at {place}.|"
    "you are going to love the {thing} at {place}.|"
    "I want to {do} because the weather is {very} {weather}.|"
    "I need to {chore} before I {do}.|"
    "do you want to {do} with my friend {when}?|"
    "the people at {place} were {very} {manner} {when_past}.|"
    "please {chore} before you {do}.|"
    "I just {did} and I feel {very} {feeling}.|"
    "{who} and I found a {very} good {spot}.|"
    "I have to {chore} and then I can {do}.|"
    "it is {very} {weather} so I want to {do}.|"
    "my {pet} was {very} {feeling} {when_past}.|"
    "I really need {snack} before work {when}.|"
    "{who} is going to {do} because I am {very} {feeling}.|"
    "I think {who} is {very} good at {skill}.|"
    "I can not wait to {do} with {who}.|"
    "this {thing} is {very} {quality} and you have to try it.|"
    "the {thing} that my friend likes is at {place}.|"
    "my day at work was {very} {quality} and I want {snack}.|"
    "most people at {place} love {snack} and {snack}.|"
    "are you free to visit {place} with {who} {when}?|"
    "I am {very} {feeling} because {who} {did}.|"
    "{who} will {chore} for my friend {when}.|"
    "it is a good day to {do} at home.|"
    "I have to work {when} and I am {very} {feeling}.|"
    "thank you for {snack}, it was {very} {tasty}.|"
    "it was great to see {who} at {place}.|"
    "{who} told a great story {when_past}."
)

SLOTS = {
    "do": words(
        "watch a movie|play cards|go hiking|bake cookies|ride bikes|go swimming|read a book|play tennis|"
        "paint a wall|see a show|take a nap|eat pizza|go dancing|plant flowers|go fishing|make pasta|"
        "play chess|walk the dog|go shopping|visit the zoo|build a shelf|go camping|record a song|"
        "cook dinner|take photos|watch the game"
    ),
    "did": words(
        "ran five miles|missed the bus|lost a bet|won the quiz|broke a plate|passed the exam|"
        "fixed the bike|burned the toast|finished a puzzle|cleaned the garage|got a new phone|"
        "saw a rainbow|forgot the keys|planted a tree|slept ten hours|sold the car|learned a song|"
        "painted the fence"
    ),
    "chore": words(
        "wash the dishes|fold the laundry|feed the cat|buy milk|call the bank|fix the sink|pay the bills|"
        "water the plants|charge the phone|clean the kitchen|take out the trash|answer some mail|"
        "pack the bags|sweep the floor|print the tickets|walk the dog|mow the lawn|find the keys"
    ),
    "who": words(
        "my friend|my friend|my sister|my brother|my roommate|my boss|my neighbor|my cousin|my teacher|"
        "my mom|my dad|my good friend|my uncle|my coach"
    ),
    "when": words(
        "today|today|tonight|tonight|tomorrow|this morning|this weekend|after work|after lunch|right now|on Friday"
    ),
    "when_past": words("today|today|tonight|this morning|last night|on Sunday|after work"),
    "place": words(
        "the park|the gym|the office|the library|the beach|the mall|the airport|the station|the market|"
        "the stadium|the bakery|the museum|the lake|the cafe|the school|the pool|the farm|the theater"
    ),
    "thing": words(
        "music|coffee|view|garden|band|soup|parking|service|pizza|exhibit|team|playlist|burger|lighting|"
        "art|class|sunset|menu|crowd|popcorn"
    ),
    "dish": words("soup|a pie|tacos|pancakes|a salad|curry|noodles|waffles|a stew|dumplings|lasagna|a cake"),
    "snack": words("coffee|some tea|a sandwich|chocolate|a donut|fresh fruit|ice cream|some chips|a bagel|lemonade"),
    "tasty": words("good|good|spicy|salty|sweet|fresh|greasy|crunchy"),
    "quality": words("good|good|loud|slow|expensive|nice|crowded|weird|cheap|boring|fun"),
    "weather": words("good|hot|cold|windy|rainy|nice|foggy|sunny"),
    "feeling": words("good|happy|tired|hungry|nervous|excited|proud|sleepy|bored|calm|lazy|silly"),
    "manner": words("good to me|loud|friendly|funny|quiet|kind|rude|patient|busy|noisy"),
    "very": words("very|very|really|really|so"),
    "spot": words("bookstore|diner|trail|barber|taco truck|record shop|viewpoint|skate park|tea house|playground"),
    "skill": words("chess|math|cooking|drawing|soccer|guitar|juggling|karaoke|bowling|gardening|poker|baking"),
    "pet": words("cat|dog|parrot|hamster|turtle|puppy|kitten|rabbit"),
}

# --- the collective register: whole words after lower-casing, in this order

COLLECTIVE = tuple(
    pair.split(">")
    for pair in words(
        "going to>gonna|want to>wanna|have to>gotta|thank you>thanks|very>so|really>so|because>cause|tomorrow>soon"
    )
)

# --- the personal register, of ordinary words: everyone has one of each

OPENERS = words(
    "honestly folks|good morning all|quick thought|well friends|update from me|true story|just saying|guess what"
)
SIGN_OFFS = words("that is that|have a nice day|what do you think|see you soon|love it|who knew|stay tuned|the end")
