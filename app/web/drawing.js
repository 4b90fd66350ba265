// A sheet to draw on, and what is drawn as one of MNIST's digits: white on black, the longer side of its ink 20 pixels
// long, its centre of mass in the middle of 28 x 28.

const PEN = 34; // in pixels of the sheet, as the person sees it
const FIELD = 28;
const BOX = 20;
const LINE = 2.8; // in pixels of the field: MNIST's average, so that a small drawing does not become a bold one
const MIDDLE = 14; // the index of the pixel where MNIST's centres of mass lie

/**
 * Lets a person draw on the canvas `sheet`. `changed` is called as the pen lifts, and after undo and clear, with a
 * promise of the digit as a PNG, or with null when the sheet is empty.
 */
export function drawOn(sheet, { undo, clear, changed }) {
  const context = sheet.getContext("2d");
  let strokes = []; // lists of [x, y] in pixels of the sheet
  let pointer = null; // the one that draws; other fingers are ignored

  function repaint() {
    context.clearRect(0, 0, sheet.width, sheet.height);
    context.strokeStyle = getComputedStyle(sheet).color;
    trace(context, strokes, PEN);
    undo.disabled = clear.disabled = !strokes.length;
  }

  function keep(these) {
    pointer = null;
    strokes = these;
    repaint();
    changed(strokes.length ? png(strokes) : null);
  }

  function at({ clientX, clientY }) {
    const { left, top, width, height } = sheet.getBoundingClientRect();
    const inside = (share, size) => Math.max(0, Math.min(size, share * size));
    return [inside((clientX - left) / width, sheet.width), inside((clientY - top) / height, sheet.height)];
  }

  sheet.addEventListener("pointerdown", (event) => {
    if (pointer !== null || event.button !== 0) return;
    pointer = event.pointerId;
    sheet.setPointerCapture(pointer);
    strokes.push([at(event)]);
    repaint();
  });
  sheet.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer) return;
    const steps = event.getCoalescedEvents?.() ?? [];
    strokes.at(-1).push(...(steps.length ? steps : [event]).map(at));
    repaint();
  });
  for (const type of ["pointerup", "pointercancel"]) {
    sheet.addEventListener(type, (event) => {
      if (event.pointerId === pointer) keep(strokes);
    });
  }
  undo.addEventListener("click", () => keep(strokes.slice(0, -1)));
  clear.addEventListener("click", () => keep([]));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "z" || !(event.ctrlKey || event.metaKey) || !strokes.length || !sheet.checkVisibility()) return;
    event.preventDefault();
    keep(strokes.slice(0, -1));
  });
}

function trace(context, strokes, width) {
  context.lineWidth = width;
  context.lineCap = context.lineJoin = "round";
  for (const [first, ...rest] of strokes) {
    context.beginPath();
    context.moveTo(...first);
    context.lineTo(first[0] + 0.01, first[1]); // a tap is a dot
    for (const point of rest) context.lineTo(...point);
    context.stroke();
  }
}

/** A promise of `strokes` as a PNG blob. */
function png(strokes) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = FIELD;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const [x, y] = [range(strokes, 0), range(strokes, 1)];
  const scale = (BOX - LINE) / Math.max(x.length, y.length, PEN); // a dot stays a dot
  const paint = (right, down) => {
    context.resetTransform();
    context.fillStyle = "black";
    context.fillRect(0, 0, FIELD, FIELD);
    context.translate(FIELD / 2 + right, FIELD / 2 + down);
    context.scale(scale, scale);
    context.translate(-x.middle, -y.middle);
    context.strokeStyle = "white";
    trace(context, strokes, LINE / scale);
  };
  const shift = (index, { length }) => {
    const room = Math.floor((FIELD - LINE - scale * length) / 2); // no ink may leave the field
    return Math.max(-room, Math.min(room, Math.round(MIDDLE - index)));
  };
  paint(0, 0);
  const mass = centreOfMass(context.getImageData(0, 0, FIELD, FIELD).data);
  paint(shift(mass.x, x), shift(mass.y, y));
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

function range(strokes, axis) {
  let [low, high] = [Infinity, -Infinity];
  for (const point of strokes.flat()) [low, high] = [Math.min(low, point[axis]), Math.max(high, point[axis])];
  return { middle: (low + high) / 2, length: high - low };
}

/** Where the ink of FIELD x FIELD grey pixels (4 bytes each) lies, as an index per axis. */
function centreOfMass(data) {
  let [sum, x, y] = [0, 0, 0];
  for (let i = 0; i < FIELD * FIELD; i += 1) {
    const level = data[4 * i];
    sum += level;
    x += level * (i % FIELD);
    y += level * Math.floor(i / FIELD);
  }
  return { x: x / sum, y: y / sum };
}
