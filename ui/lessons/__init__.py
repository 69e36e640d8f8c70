"""The lessons, in order: one module each, all of one shape."""

from ui.lessons import budgets, cascade, channel, domains, fluctuation, repair, scale

LESSONS = tuple(module.LESSON for module in (channel, fluctuation, repair, domains, cascade, budgets, scale))
