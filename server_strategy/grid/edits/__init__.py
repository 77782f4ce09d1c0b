"""The edits that cross: as strategies see them, and as they travel, whole or as changes.

translation   between the arrays that strategies see and those that travel
broadcasts    on a narrow wire, what was broadcast and who has it
"""
