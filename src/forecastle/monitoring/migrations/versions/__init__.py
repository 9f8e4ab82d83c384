"""The scripts, one a revision, each as it was on the day it was written: a later one never changes an earlier one."""
