"""Answers and losses under edits: decoding, scoring, choice among labels, the four arms of a test."""
