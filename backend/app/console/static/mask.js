// Painting a mask over an image: what is painted may change. <mask-editor> holds the dialog.

// Strokes have their brush and points in pixels of the image; `scale` is how many of the canvas one of them is.
const draw = (context, strokes, scale) => {
  context.lineCap = "round";
  context.lineJoin = "round";
  for (const { brush, points } of strokes) {
    context.lineWidth = brush * scale;
    context.beginPath();
    for (const [x, y] of points) context.lineTo(x * scale, y * scale);
    const [x, y] = points.at(-1);
    context.lineTo(x * scale + 0.01, y * scale); // so that a stroke of one point is a dot
    context.stroke();
  }
};

// The strokes as a PNG of the image's size: transparent where they are, opaque elsewhere.
const maskOf = async (strokes, { width, height }) => {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  context.fillRect(0, 0, width, height);
  context.globalCompositeOperation = "destination-out";
  draw(context, strokes, 1);
  return new Promise((resolve) => { canvas.toBlob(resolve, "image/png"); });
};

class MaskEditor extends HTMLElement {
  connectedCallback() {
    this.dialog = this.querySelector("dialog");
    this.canvas = this.querySelector(".easel > canvas");
    this.canvas.addEventListener("pointerdown", (event) => this.begin(event));
    this.canvas.addEventListener("pointermove", (event) => this.goOn(event));
    this.canvas.addEventListener("lostpointercapture", () => { this.isPainting = false; });
    this.addEventListener("click", (event) => this[event.target.dataset.action]?.());
  }

  // Lets the user paint over the picture, an element that shows the image. Resolves to the strokes and the mask, which is
  // null where nothing is painted; or to null where the user gives up.
  async paint(picture, { width, height, strokes = [] }) {
    this.size = { width, height };
    const easel = this.querySelector(".easel");
    easel.style.setProperty("--ratio", width / height);
    easel.querySelector(".picture").replaceChildren(picture);
    this.canvas.width = picture.naturalWidth || picture.width;
    this.canvas.height = picture.naturalHeight || picture.height;
    this.change(strokes);
    this.dialog.returnValue = "";
    this.dialog.showModal();
    await new Promise((resolve) => { this.dialog.addEventListener("close", resolve, { once: true }); });
    if (this.dialog.returnValue !== "use") return null;
    return { strokes: this.strokes, mask: this.strokes.length ? await maskOf(this.strokes, this.size) : null };
  }

  use() {
    this.dialog.close("use");
  }

  giveUp() {
    this.dialog.close("");
  }

  undo() {
    this.change(this.strokes.slice(0, -1));
  }

  clear() {
    this.change([]);
  }

  change(strokes) {
    this.strokes = strokes;
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.strokeStyle = getComputedStyle(this.canvas).color;
    draw(context, strokes, this.canvas.width / this.size.width);
  }

  begin(event) {
    if (!event.isPrimary || event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.isPainting = true;
    const brush = (this.querySelector("input").valueAsNumber / 100) * Math.max(this.size.width, this.size.height);
    this.change([...this.strokes, { brush, points: [this.pointOf(event)] }]);
  }

  goOn(event) {
    if (!this.isPainting) return;
    this.strokes.at(-1).points.push(this.pointOf(event));
    this.change(this.strokes);
  }

  pointOf(event) {
    const box = this.canvas.getBoundingClientRect();
    const { width, height } = this.size;
    return [((event.clientX - box.left) / box.width) * width, ((event.clientY - box.top) / box.height) * height];
  }
}

customElements.define("mask-editor", MaskEditor);
