"""Assignments from one source: versions for students, graders and instructors, and their marks.

An assignment is an ordinary notebook with its solutions in place (`notebooks/course`), marked by
nbgrader's conventions (`cells`). `build` makes its versions, `grade` runs what students hand in.
"""
