"""Users who are made up, with habits that are known: a data set for whoever has none.

grammar    the words and sentences that the users are made of
users      seeded users of LaMP_7's shape, the default data
tasks      the same for the other five tasks: a shared rule and a personal one
ceilings   what answers score that know ever more of a user; `python -m fed.lamp.synthetic.ceilings` shows some
"""
