"""Describes how people write the ten digits, as data: pen strokes through control points."""

from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Glyph:
    """Is one way to write a digit.

    Args:
        what: what is special about it.
        share: how often people write it so, relative to the digit's other glyphs.
        pen: the control points of a curve, each "x,y" in percent of the digit's box, x to the right and y down. "!"
            makes a corner and "|" lifts the pen. Equal points are one point: they move together when a digit is drawn.
        wobble: how far the points may move, relative to other glyphs.
    """

    what: str
    share: float
    pen: str
    wobble: float = 1.0

    @property
    def strokes(self) -> tuple[tuple[Point, ...], ...]:
        """The points of each stroke, in a box of 1x1. A corner stands there twice."""
        return tuple(
            tuple(point for word in stroke.split() for point in _points(word)) for stroke in self.pen.split("|")
        )


def _points(word: str) -> tuple[Point, ...]:
    x, y = word.removesuffix("!").split(",")
    point = float(x) / 100, float(y) / 100
    return (point, point) if word.endswith("!") else (point,)


_ZERO = (
    Glyph("one round from the top", 4, "50,0 20,15 5,50 20,87 50,100 80,85 95,50 80,13 50,0"),
    Glyph("starts at the upper right and overshoots", 2, "70,8 40,3 12,30 8,70 35,100 75,85 95,45 80,12 45,6"),
    Glyph("does not quite close", 1, "45,2 15,20 5,60 25,95 60,98 90,70 90,30 70,6"),
)
_ONE = (
    Glyph("a bare stroke", 6, "50,0 50,33 50,66 50,100", wobble=0.5),
    Glyph("with an upstroke", 1, "30,22 42,12 52,0! 52,50 52,100", wobble=0.6),
    Glyph("with a foot", 0.5, "30,22 42,12 52,0! 52,50 52,100 | 28,100 52,100 78,100", wobble=0.6),
    Glyph("a long upstroke", 0.3, "15,40 35,25 55,0! 53,50 50,100", wobble=0.6),
)
_TWO = (
    Glyph("sharp at the foot", 4, "8,25 25,5 55,0 82,18 75,45 45,72 8,98! 50,97 95,95"),
    Glyph("with a loop at the foot", 3, "10,20 35,2 68,6 75,35 52,68 22,95 6,85 22,72 50,86 75,96 100,88"),
    Glyph("round at the foot", 2, "12,22 40,0 75,12 72,42 40,75 14,93 40,94 70,96 98,90"),
    Glyph("wide, the base line falls", 1, "5,30 30,3 65,8 70,40 40,70 10,88! 50,92 100,100"),
    Glyph("a flat loop, a long tail", 2, "20,22 45,0 72,20 58,55 25,88 4,92 8,76 38,80 70,92 115,96"),
    Glyph("starts with a hook", 1.5, "32,40 14,26 38,0 78,18 66,58 20,94 4,80 26,70 60,88 96,94"),
    Glyph("a large loop at the foot", 2.5, "12,18 40,0 66,12 66,45 50,82 22,98 4,84 16,66 45,68 72,84 100,80"),
    Glyph("upright, the base line drops", 1.5, "14,24 38,0 66,14 62,48 40,78 16,84! 50,84 80,92 98,100"),
    Glyph("narrow, a short base line", 1, "20,15 50,0 72,18 66,50 40,85 30,100! 50,98 78,95"),
)
_THREE = (
    Glyph("a sharp middle", 4, "10,12 45,0 78,12 70,36 38,47! 75,56 88,78 55,100 8,90"),
    Glyph("a soft middle", 2, "12,15 50,0 78,20 58,42 36,48 60,52 88,72 62,98 10,92"),
    Glyph("a flat top", 1, "12,5 45,4 80,3! 60,25 42,42! 75,50 86,75 55,100 8,90"),
    Glyph("wide", 2, "5,12 50,0 85,10 70,34 32,48! 70,52 95,70 70,95 0,95"),
    Glyph("the upper bowl small", 2, "28,14 55,0 75,14 62,36 40,45! 80,54 86,80 50,100 4,86"),
    Glyph("a loop in the middle", 1, "12,15 50,0 78,20 55,46 36,50 46,41 62,52 88,72 62,98 10,92"),
    Glyph("the lower bowl deep and open", 1.5, "18,8 48,0 72,14 62,36 42,44! 70,52 80,74 62,96 30,100 10,84"),
    Glyph("narrow, hardly waisted", 1, "22,10 50,0 66,14 56,34 46,44! 62,54 68,74 52,96 18,98"),
)
_FOUR = (
    Glyph("open at the top", 4, "15,0 10,25 8,52! 45,53 85,50 | 80,2 76,50 70,100"),
    Glyph("in one go: down, across, up and down again", 2, "18,2 10,30 15,52 50,52 75,30 82,2! 76,50 70,100"),
    Glyph("the stem crosses the bar", 2, "25,5 15,30 5,58! 50,56 100,52 | 68,25 64,60 60,100"),
    Glyph("closed at the top", 2, "62,0 35,30 5,65! 50,64 100,60 | 62,0 62,50 60,100"),
    Glyph("a short stem", 1, "20,0 12,30 10,58! 45,60 95,52 | 92,5 75,45 55,100"),
)
_FIVE = (
    Glyph("the bar comes last", 4, "28,3 25,22 22,42! 55,36 85,60 65,95 5,93 | 28,3 60,3 95,0"),
    Glyph("in one go from the end of the bar", 3, "92,2 60,3 30,5! 27,25 22,45! 60,42 80,68 55,97 5,90"),
    Glyph("soft, as an S", 2, "95,5 60,2 30,12 25,38 55,50 76,72 50,98 5,88"),
    Glyph("a long bar, a small bowl", 1.5, "40,25 35,42 30,50! 60,48 70,72 45,98 5,90 | 38,24 70,12 115,2"),
    Glyph("low and wide", 1, "30,20 26,50! 60,42 80,60 55,86 0,84 | 30,20 70,14 120,6"),
)
_SIX = (
    Glyph("round", 4, "70,0 35,25 12,60 22,92 55,100 82,80 65,56 35,60 18,80"),
    Glyph("a straight back, a small bowl", 2, "35,0 20,30 10,65 25,95 60,98 82,80 60,66 30,75 18,88"),
    Glyph("a wide sweep", 2, "85,3 45,12 15,50 15,85 50,100 88,82 80,55 45,52 14,78"),
    Glyph("lying, a large bowl", 1.5, "40,0 12,30 8,75 50,100 105,85 95,55 55,60 18,88"),
)
_SEVEN = (
    Glyph("plain", 5, "5,8 45,6 92,4! 68,50 45,100"),
    Glyph("the bar starts with a serif", 1.5, "10,28 10,8! 50,8 92,5! 66,50 48,100"),
    Glyph("soft at the corner", 2, "5,20 35,5 75,5 82,25 62,60 50,100"),
    Glyph("with a cross bar", 1.2, "5,8 45,6 92,4! 66,50 42,100 | 30,55 55,52 85,50"),
    Glyph("an upright stem", 1.5, "5,12 45,8 85,5! 85,50 80,100"),
    Glyph("a long serif", 0.7, "5,36 8,5! 50,6 90,3! 80,45 68,100"),
    Glyph("low and wide", 0.7, "0,28 30,6 85,0! 60,36 22,72"),
)
_EIGHT = (
    Glyph("in one go", 4, "82,14 50,0 20,18 35,42 70,60 82,85 50,100 20,84 35,58 68,40 84,16"),
    Glyph("two rings", 1.5, "50,47 20,36 22,10 50,0 78,10 78,36 50,47 15,62 18,90 50,100 82,90 85,62 50,47"),
    Glyph("narrow, the lower ring small", 1.5, "72,8 42,2 25,22 48,45 66,70 56,95 34,92 36,68 58,40 78,12"),
    Glyph("open at the top", 1, "78,5 40,6 20,26 50,46 74,68 62,96 32,94 28,70 55,46 85,20"),
    Glyph("overshoots at the upper right", 3, "76,20 50,3 22,15 35,40 68,60 75,85 50,100 25,85 38,60 70,30 98,2"),
    Glyph("an S closed by a straight line", 2.5, "88,10 45,3 22,22 45,42 66,62 60,92 35,98 22,80 45,55 88,12"),
    Glyph("the lower ring is a sliver", 2, "78,15 50,0 20,15 30,36 60,50 62,76 46,100 34,80 46,55 74,36 80,15"),
    Glyph("two wide rings", 1.5, "50,46 8,36 14,6 50,0 86,6 92,36 50,46 6,60 10,94 50,100 90,94 94,60 50,46"),
    Glyph("the lower ring stays open", 1, "80,14 50,0 22,16 36,40 70,62 78,96 | 80,14 64,38 36,60 14,98"),
)
_NINE = (
    Glyph("a straight tail", 4, "78,18 50,0 20,15 18,42 50,50 78,18! 75,60 68,100"),
    Glyph("the tail bends back", 1.5, "80,15 45,2 18,22 30,48 65,42 80,15! 82,55 65,92 20,95"),
    Glyph("the loop runs over into the tail", 2, "70,10 40,2 15,22 25,45 60,38 82,8 75,50 60,100"),
    Glyph("wide, the tail slants", 1.5, "85,25 60,5 20,15 10,38 40,48 85,25 70,60 45,100"),
    Glyph("a small loop, a long tail", 2, "76,12 46,0 22,12 24,32 50,36 76,12! 72,55 65,100"),
    Glyph("the loop starts beside the stem", 1.5, "92,6 50,2 18,20 28,44 68,32 88,6! 76,55 62,100"),
    Glyph("the foot curls up", 1, "80,16 46,0 18,20 30,46 62,42 80,16! 82,55 74,90 45,100 20,84"),
    Glyph("a large ring, a short tail", 2, "80,28 58,2 22,10 8,36 28,56 62,48 80,22! 80,60 76,100"),
    Glyph("the loop stays open", 1.2, "72,8 44,2 16,20 16,40 46,48 76,30! 76,62 64,100"),
)

# By digit.
GLYPHS: tuple[tuple[Glyph, ...], ...] = (_ZERO, _ONE, _TWO, _THREE, _FOUR, _FIVE, _SIX, _SEVEN, _EIGHT, _NINE)
