"""The ServerApp: federated rounds, stage 2, evaluation, and the report. Never imports `clients`.

app               the ServerApp
run               one run: greeting, stage 1, stage 2, evaluation, report
stage1            the collective edit: trained by rounds or in one place, and handed out
personalization   after stage 1: hand out the collective edit, have users train and test
grid/             the SuperNodes: who they are, users shown as nodes, messages packed and counted
screening/        what is believed of what nodes send: rules for greetings and replies
rounds/           the rounds of stage 1: strategy, sampling, steps
checkpoint/       what a run that was broken off goes on from
report/           what a run prints and leaves: its log, report.json, tables, charts, a page
"""
