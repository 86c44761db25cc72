"""Noisy Student: label, filter, balance, train a larger model with noise, repeat."""

from train.noisy_student.plan import EACH_ROUND, NoisyStudent, Student, teacher_config

__all__ = ["EACH_ROUND", "NoisyStudent", "Student", "teacher_config"]
