"""The LaMP benchmark: six tasks, its data in two layouts, a device's own history, cohorts, metrics, submissions.

tasks         the six tasks: wording, labels, metrics
user          a user as data: its history and its queries
parsing       the rules that a record must obey to become a user
layouts       LaMP's and OPPU's layouts, found on disk and read user by user
records       a source's name in, one corpus with random access out
own_history   one device's own history, in a file that grows
cohorts       who federates, who personalizes, on which rows
metrics       LaMP's scores, from sums that can be added across users
rouge_words   whose words ROUGE counts: LaMP's, or those of any script
submission    answers in LaMP's submission format, and their scores
json_files/   JSON files of any size, one record at a time
synthetic/    made-up users with known habits, for whoever has no data
"""
