"""Click's commands and groups with the small things that all of ours need."""

from __future__ import annotations

import click


class _WithContext(click.Command):
    """Click forgets to say in which command an option lacks its word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.BadOptionUsage as error:
            error.ctx = error.ctx or ctx
            raise


class Command(_WithContext):
    """A command whose errors name it."""


class Group(_WithContext, click.Group):
    """A group whose errors name it, and whose commands are such, too."""

    command_class = Command
    group_class = type
