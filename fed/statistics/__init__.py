"""Intervals and tests for paired numbers of a few users: arrays in, numbers out. Knows no report and no metric.

paired_t           the t interval of the mean of paired differences
bca                the BCa bootstrap interval of a mean (Efron, 1987), for many users
sign_flip          the sign-flip test, exact up to 14 users
holm               Holm's correction of a family's p values
rank_correlation   Spearman's rank correlation, p by permutation
student_t          Student's t: tail and quantile, without scipy
"""
