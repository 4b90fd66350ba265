"""Reports what `benchmarks.gpu.run` has measured: each row beside its ceiling, as tables for people and as JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.gpu.ceilings import Decoding, Forward
from benchmarks.gpu.engine import Engine
from benchmarks.gpu.over_http import Http

Row = Forward | Decoding | Engine | Http

# The targets.
OF_THE_GPU = 0.95  # the engine's rate over that of the forward pass at its best batch
OF_THE_CEILING = 0.9  # the server's rate over the lower one of forward pass and decoding
BUSY = 90.0  # percent of the time, if the forward pass is the lower of the two
P99 = 25.0  # milliseconds at the fixed rate


@dataclass(frozen=True, slots=True)
class Finding:
    """A value beside its target.

    Args:
        at_most: whether the target is an upper bound. Otherwise it is a lower one.
    """

    what: str
    value: float
    target: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether the value reaches the target."""
        return self.value <= self.target if self.at_most else self.value >= self.target


class Ceilings:
    """The best rates that were measured, which bound the engine and the server. None stands for what was not measured.

    `best` has the best forward pass of each network and precision, `decoding` the photos per second of the processor.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self.best: dict[tuple[str, str], Forward] = {}
        self.decoding: float | None = None
        for row in rows:
            if isinstance(row, Forward):
                key = row.network, row.precision
                if key not in self.best or row.images_per_second > self.best[key].images_per_second:
                    self.best[key] = row
            elif isinstance(row, Decoding) and not row.on_gpu:
                self.decoding = max(row.photos_per_second, self.decoding or 0)

    def gpu(self, row: Engine | Http) -> float | None:
        """Returns the images per second of the forward pass at its best batch."""
        best = self.best.get((row.network, row.precision))
        return best.images_per_second if best else None

    def of(self, row: Engine | Http) -> float | None:
        """Returns the images per second that this row cannot exceed."""
        gpu = self.gpu(row)
        if isinstance(row, Engine) or gpu is None or self.decoding is None:
            return gpu if isinstance(row, Engine) else None
        return min(gpu, self.decoding)


def findings(rows: Sequence[Row]) -> list[Finding]:
    """Sets the best row of each network and precision beside the targets."""
    ceilings = Ceilings(rows)
    found: list[Finding] = []
    served = [row for row in rows if isinstance(row, Engine | Http)]
    for network, precision in dict.fromkeys((row.network, row.precision) for row in served):
        of_these = [row for row in served if (row.network, row.precision) == (network, precision)]
        for kind, target in ((Engine, OF_THE_GPU), (Http, OF_THE_CEILING)):
            closed = [row for row in of_these if isinstance(row, kind) and getattr(row, "rate", None) is None]
            best = max(closed, key=lambda row: row.images_per_second, default=None)
            ceiling = ceilings.of(best) if best else None
            if best is None or not ceiling:
                continue
            name = f"{network}, {precision}, {kind.__name__.lower()}"
            found.append(Finding(f"{name}: of its ceiling", best.images_per_second / ceiling, target))
            if isinstance(best, Http) and best.busy is not None and ceiling == ceilings.gpu(best):
                found.append(Finding(f"{name}: GPU busy, %", best.busy, BUSY))
        found += [
            Finding(f"{network}, {precision}, http: p99 at {row.rate:,.0f} a second, ms", row.p99, P99, at_most=True)
            for row in of_these
            if isinstance(row, Http) and row.rate is not None and row.p99 is not None
        ]
    return found


def line(row: Row) -> str:
    """Writes a row as one line."""
    values = asdict(row).items()
    return ", ".join(f"{name} {value:.5g}" if isinstance(value, float) else f"{name} {value}" for name, value in values)


def show(rows: Sequence[Row], found: Sequence[Finding], *, device: str) -> None:
    """Prints a table for each stage, and a line for each finding."""
    console, ceilings = Console(width=120), Ceilings(rows)
    tables = (
        _forward([row for row in rows if isinstance(row, Forward)], ceilings, device),
        _decoding([row for row in rows if isinstance(row, Decoding)]),
        _engine([row for row in rows if isinstance(row, Engine)], ceilings),
        _http([row for row in rows if isinstance(row, Http)], ceilings),
    )
    for table in tables:
        if table.row_count:
            console.print(table)
    for each in found:
        target = f"{'at most' if each.at_most else 'at least'} {each.target:g}"
        print(f"{'met   ' if each.met else 'MISSED'} {each.what}: {each.value:.3g} ({target})")


def document(rows: Sequence[Row], found: Sequence[Finding]) -> dict[str, Any]:
    """Returns all rows and findings as values for JSON."""
    ceilings = Ceilings(rows)
    stages: dict[str, list[dict[str, Any]]] = {kind.__name__.lower(): [] for kind in (Forward, Decoding, Engine, Http)}
    for row in rows:
        values = asdict(row)
        if isinstance(row, Engine | Http):
            values["ratio"] = _ratio(row, ceilings)
        stages[type(row).__name__.lower()].append(
            {name: round(value, 4) if isinstance(value, float) else value for name, value in values.items()}
        )
    return {
        "best_batch": {f"{network}, {precision}": best.batch for (network, precision), best in ceilings.best.items()},
        "findings": [{**asdict(each), "value": round(each.value, 4), "met": each.met} for each in found],
        **stages,
    }


def _ratio(row: Engine | Http, ceilings: Ceilings) -> float | None:
    ceiling = ceilings.of(row)
    return row.images_per_second / ceiling if ceiling else None


def _forward(rows: Sequence[Forward], ceilings: Ceilings, device: str) -> Table:
    """Makes a table with a row for each size of batch. A star marks the best."""
    table = _table(f"forward pass on {device}, images/s", "batch")
    for network, precision in ceilings.best:
        table.add_column(f"{network}\n{precision}", justify="right")
    rates = {(row.network, row.precision, row.batch): row for row in rows}
    for batch in sorted({row.batch for row in rows}):
        cells = [rates.get((*key, batch)) for key in ceilings.best]
        texts = ["" if cell is None else _speed(cell.images_per_second) for cell in cells]
        best = [cell is not None and cell in ceilings.best.values() for cell in cells]
        table.add_row(f"{batch}", *(f"{text} *" if star else text for text, star in zip(texts, best, strict=True)))
    return table


def _decoding(rows: Sequence[Decoding]) -> Table:
    table = _table("decoding of photos", "how", "photos/s")
    for row in rows:
        table.add_row(row.how, _speed(row.photos_per_second))
    return table


def _engine(rows: Sequence[Engine], ceilings: Ceilings) -> Table:
    table = _table("engine without HTTP", "network", "", "max batch", "images a submit", "images/s", "ratio", "busy %")
    for row in rows:
        numbers = f"{row.max_batch}", f"{row.items}", _speed(row.images_per_second)
        table.add_row(row.network, row.precision, *numbers, _or_blank(_ratio(row, ceilings), 2), _or_blank(row.busy, 0))
    return table


def _http(rows: Sequence[Http], ceilings: Ceilings) -> Table:
    columns = (
        "clients",
        "due/s",
        "images/s",
        "ratio",
        "p50 ms",
        "p99 ms",
        "busy %",
        "CPU µs",
        "clients' CPU",
        "failed",
    )
    table = _table("server over HTTP", "network", "", *columns)
    for row in rows:
        table.add_row(
            row.network,
            row.precision,
            f"{row.clients}",
            "" if row.rate is None else _speed(row.rate),
            _speed(row.images_per_second),
            _or_blank(_ratio(row, ceilings), 2),
            *(_or_blank(value, 1) for value in (row.p50, row.p99)),
            _or_blank(row.busy, 0),
            f"{row.cpu_us:,.0f}",
            f"{row.clients_cpu:.2f}",
            f"{sum(row.failed.values()) or ''}",
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def _speed(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _or_blank(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
