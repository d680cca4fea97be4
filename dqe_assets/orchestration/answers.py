"""What the quality report and the origin of a sample's numbers are, for these settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dqe_assets.orchestration.graph import relations, signals
from dqe_assets.report.explain import explanation
from dqe_assets.report.quality import quality_report
from dqe_assets.report.summary import summary
from dqe_resources.warehouse import of_this_version

if TYPE_CHECKING:
    from dqe_assets.orchestration.settings import Settings
    from dqe_assets.report.quality import Section
    from dqe_assets.report.summary import Summary


def report_of(settings: Settings, *, everything: bool = False) -> tuple[Summary, list[Section]]:
    """The summary and the sections of the quality report.

    Args:
        settings: whose warehouse it is of.
        everything: also sections with nothing in them.

    Raises:
        WarehouseError: the warehouse cannot be read, or was made by another version.
    """
    contributed = relations(settings)
    with settings.warehouse.reading() as connection, of_this_version():
        return summary(connection, contributed), quality_report(connection, contributed, everything=everything)


def explanation_of(settings: Settings, sample: str) -> list[Section]:
    """All that is known of a sample, and where each number is from.

    Args:
        settings: whose warehouse it is in.
        sample: its uid, or the source's own name of it.

    Raises:
        ValueError: there is no such sample; says which names are near.
        WarehouseError: the warehouse cannot be read, or was made by another version.
    """
    return explanation(
        settings.warehouse,
        relations(settings),
        sample,
        store=settings.opened_store,
        subsets=[f"subsets/{name}" for name in settings.subset_names],
        signals=signals(settings),
    )
