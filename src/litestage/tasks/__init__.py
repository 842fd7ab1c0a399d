"""Stages, tasks and question sets as data: what is asked of the model, in which words, and how its answer is read."""

from litestage.tasks.load import list_tasks, load_task
from litestage.tasks.question import LETTERS, Question, check_text
from litestage.tasks.questions import SPLITS, Split, has_certify_questions, load_questions
from litestage.tasks.targets import trainable, with_targets
from litestage.tasks.task import Stage, Task, list_choices

__all__ = [
    "LETTERS",
    "SPLITS",
    "Question",
    "Split",
    "Stage",
    "Task",
    "check_text",
    "has_certify_questions",
    "list_choices",
    "list_tasks",
    "load_questions",
    "load_task",
    "trainable",
    "with_targets",
]
