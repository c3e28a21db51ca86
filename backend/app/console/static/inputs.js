// The images that go into a generation: chosen, dropped, pasted, or earlier ones of the account; their order, their mask.
// <image-inputs> shows them. They outlive the element, which is replaced with its form whenever an answer comes.

const THUMBNAIL = 256;
const PAINTING = 1024;

// Each is { file } or { id, width, height }, and has a `name`. The mask is null or { file, name }.
const chosen = { images: [], mask: null };
let isNewPage = true;

const announce = (sentence) => {
  document.getElementById("status").textContent = sentence;
};

// An element that shows the image, no larger than `side`. Rejects for a file that this browser cannot read. Files are
// drawn on a canvas, so that the page needs no permission for images from other addresses than the site's.
const pictureOf = async (image, side) => {
  if (image.id) {
    const picture = new Image();
    picture.alt = "";
    picture.src = `/v1/images/${image.id}.webp?width=${side}`;
    await picture.decode();
    return picture;
  }
  const bitmap = await createImageBitmap(image.file);
  image.width = bitmap.width;
  image.height = bitmap.height;
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return canvas;
};

const thumbnailOf = (image) => {
  if (!image.thumbnail) {
    image.thumbnail = document.createElement("span");
    image.thumbnail.className = "thumbnail";
    pictureOf(image, THUMBNAIL).then(
      (picture) => image.thumbnail.replaceChildren(picture),
      () => { image.thumbnail.textContent = "No preview"; },
    );
  }
  return image.thumbnail;
};

class ImageInputs extends HTMLElement {
  connectedCallback() {
    if (isNewPage) this.takeOverFromPage();
    isNewPage = false;
    const errors = [...this.querySelectorAll(".error[data-index]")];
    this.show();
    for (const error of errors) this.list.children[error.dataset.index]?.append(error);
    this.addEventListener("change", (event) => this.takeFiles(event.target));
    this.addEventListener("click", (event) => {
      const button = event.target.closest("button[data-action]");
      if (button) this[button.dataset.action](Number(button.dataset.index));
    });
  }

  get list() {
    return this.querySelector(".inputs");
  }

  // The images that the server put into the page's list.
  takeOverFromPage() {
    for (const { dataset } of this.list.children) {
      const { id, width, height, name } = dataset;
      chosen.images.push({ id, width: Number(width), height: Number(height), name });
    }
  }

  takeFiles(input) {
    const files = [...input.files];
    input.value = "";
    if (input.name === "mask") this.setMask(files[0] && { file: files[0], name: files[0].name });
    else this.add(files);
  }

  note(sentence) {
    this.querySelector(".note").textContent = sentence;
    announce(sentence);
  }

  // Adds the files that may go in, and says why others may not.
  add(files) {
    const { max, imageBytesMax, bytesMax, tooLarge } = this.dataset;
    const images = [...chosen.images];
    let free = bytesMax - images.reduce((bytes, { file }) => bytes + (file?.size ?? 0), 0);
    let refusal = "";
    for (const file of files) {
      if (images.length >= max) {
        refusal = `At most ${max} images go in`;
      } else if (file.size > Math.min(imageBytesMax, free)) {
        refusal = tooLarge;
      } else {
        images.push({ file, name: file.name });
        free -= file.size;
      }
    }
    this.change(images);
    if (refusal) this.note(refusal);
    else announce(`${images.length} images go in`);
  }

  // Takes the place of all images. The mask belongs to the first one, and goes with it.
  change(images) {
    const wasEmpty = !chosen.images.length;
    if (images[0] !== chosen.images[0]) chosen.mask = null;
    chosen.images = images;
    this.querySelector(".note").textContent = "";
    this.querySelector("#images").removeAttribute("aria-invalid");
    this.show();
    const size = document.getElementById("size");
    if (wasEmpty && images.length) size.value = "auto";
    if (!images.length && size.value === "auto") size.selectedIndex = 0;
  }

  setMask(mask) {
    chosen.mask = mask ?? null;
    this.show();
    announce(mask ? "The mask is set" : "There is no mask");
  }

  show() {
    this.list.replaceChildren(...chosen.images.map((image, index) => this.item(image, index)));
    document.querySelector("#size option[value=auto]").disabled = !chosen.images.length;
    this.querySelector(".add").hidden = chosen.images.length >= Number(this.dataset.max);
    const section = this.querySelector(".mask");
    if (!section) return;
    section.hidden = !chosen.images.length;
    section.querySelector(".chosen").textContent = chosen.mask?.name ?? "";
    section.querySelector("[data-action=removeMask]").hidden = !chosen.mask;
  }

  item(image, index) {
    const item = this.querySelector("template").content.firstElementChild.cloneNode(true);
    item.prepend(thumbnailOf(image));
    item.querySelector(".name").textContent = image.name;
    for (const button of item.querySelectorAll("button")) {
      button.dataset.index = index;
      button.setAttribute("aria-label", `${button.title} image ${index + 1}, ${image.name}`);
    }
    item.querySelector("[data-action=moveEarlier]").disabled = index === 0;
    item.querySelector("[data-action=moveLater]").disabled = index === chosen.images.length - 1;
    return item;
  }

  moveEarlier(index) {
    this.move(index, index - 1);
  }

  moveLater(index) {
    this.move(index, index + 1);
  }

  move(from, to) {
    const images = [...chosen.images];
    images.splice(to, 0, ...images.splice(from, 1));
    this.change(images);
    const action = to < from ? "moveEarlier" : "moveLater";
    const buttons = [...this.list.children[to].querySelectorAll("[data-action^=move]:enabled")];
    (buttons.find((each) => each.dataset.action === action) ?? buttons[0]).focus();
    announce(`Now image ${to + 1} of ${images.length}`);
  }

  remove(index) {
    this.change(chosen.images.toSpliced(index, 1));
    const next = this.list.children[index] ?? this.list.lastElementChild;
    (next?.querySelector("[data-action=remove]") ?? this.querySelector("#images")).focus();
    announce(`Removed; ${chosen.images.length} images go in`);
  }

  removeMask() {
    this.setMask(null);
    this.querySelector("[data-action=paintMask]").focus();
  }

  async paintMask() {
    const [image] = chosen.images;
    const picture = await pictureOf(image, PAINTING).catch(() => null);
    if (!picture) {
      this.note("This browser cannot show the first image. Choose a file for the mask");
      return;
    }
    const painted = await document.querySelector("mask-editor").paint(picture, image);
    if (!painted) return;
    image.strokes = painted.strokes;
    // Meanwhile an answer may have come, and another element taken the place of this one.
    shown()?.setMask(painted.mask && { file: painted.mask, name: "Painted" });
  }
}

customElements.define("image-inputs", ImageInputs);

const shown = () => document.querySelector("image-inputs");

// The form is sent with these images instead of what its file inputs hold.
document.addEventListener("formdata", ({ target, formData }) => {
  if (!target.querySelector("image-inputs")) return;
  formData.delete("images");
  formData.delete("mask");
  for (const { id, file } of chosen.images) formData.append("images", id ?? file);
  if (chosen.mask && target.querySelector(".mask")) formData.append("mask", chosen.mask.file, "mask.png");
});

document.addEventListener("paste", (event) => {
  const { files, types } = event.clipboardData;
  if (!shown() || !files.length || types.includes("text/plain")) return;
  event.preventDefault();
  shown().add([...files]);
});

const hasFiles = (event) => shown() && event.dataTransfer.types.includes("Files");

document.addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  shown().classList.add("dropping");
});

document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) shown()?.classList.remove("dropping");
});

document.addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  shown().classList.remove("dropping");
  shown().add([...event.dataTransfer.files]);
});

// "Edit this" beside a result: its image goes in, and the page stays as it is.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-edit]");
  if (!link || !shown() || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  const { edit, width, height, name } = link.dataset;
  shown().change([{ id: edit, width: Number(width), height: Number(height), name }]);
  announce("The image goes in. Say what is to change");
  const prompt = document.getElementById("prompt");
  prompt.focus();
  prompt.select();
});
