// The heatmaps of a report: a byte for each column, from `visualization/report.py`.

const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];

const decode = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

function heatmaps(root, bytes) {
  const length = new DataView(bytes.buffer).getUint32(0, true);
  const maps = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + length))), table = colourTable(CIVIDIS);
  const select = root.querySelector("select"), slider = root.querySelector("input"), says = root.querySelector(".here");
  select.append(...maps.quantities.map((name) => new Option(name)));
  Object.assign(slider, { min: 0, max: maps.iterations.length - 1, step: 1, value: 0 });
  slider.closest("label").hidden = maps.iterations.length < 2;
  const canvases = maps.kinds.map(() => {
    const canvas = document.createElement("canvas");
    canvas.className = "map";
    canvas.setAttribute("role", "img");
    root.insertBefore(canvas, says);
    return canvas;
  });
  const shown = () => maps.frames.filter((f) => f.quantity === select.selectedIndex && f.iteration === Number(slider.value));

  function draw() {
    root.querySelector("output").textContent = maps.iterations[slider.value];
    for (const [at, frame] of shown().entries()) {
      const canvas = canvases[at], context = canvas.getContext("2d"), { layers, columns, low, high } = frame;
      const row = Math.max(3, Math.min(20, Math.floor(260 / layers))), density = window.devicePixelRatio || 1;
      const width = root.clientWidth, height = layers * row + 20;
      canvas.width = width * density;
      canvas.height = height * density;
      canvas.style.height = `${height}px`;
      context.scale(density, density);
      const ink = getComputedStyle(root).color;
      context.fillStyle = context.strokeStyle = ink;
      context.font = "12px system-ui, sans-serif";
      const title = `${maps.kinds[at]} channels by layer: log10 of the ${maps.quantities[frame.quantity]}, ${low.toFixed(1)} (dark) to ${high.toFixed(1)} (light)`;
      context.fillText(title, 30, 12);
      canvas.setAttribute("aria-label", `${title}; iteration ${maps.iterations[slider.value]}`);
      context.save();
      context.beginPath();
      context.rect(30, 20, width - 30, layers * row);
      context.clip();
      context.globalAlpha = 0.3; // hatched where nothing is drawn over it
      for (let x = -layers * row; x < width; x += 5) { context.moveTo(x, 20 + layers * row); context.lineTo(x + layers * row, 20); }
      context.stroke();
      context.restore();
      const image = document.createElement("canvas"), pixels = new ImageData(columns, layers);
      image.width = columns;
      image.height = layers;
      const data = new Uint32Array(pixels.data.buffer), start = 4 + length + frame.start;
      for (let i = 0; i < data.length; i++) if (bytes[start + i]) data[i] = table[bytes[start + i]];
      image.getContext("2d").putImageData(pixels, 0, 0);
      context.imageSmoothingEnabled = false;
      context.drawImage(image, 30, 20, width - 30, layers * row);
      context.textAlign = "right";
      const step = Math.max(1, Math.ceil(14 / row));
      for (let layer = 0; layer < layers; layer += step) context.fillText(layer, 24, 20 + layer * row + row / 2 + 4);
      canvas.onpointermove = (event) => {
        const box = canvas.getBoundingClientRect(), layer = Math.floor((event.clientY - box.top - 20) / row);
        const column = Math.floor(((event.clientX - box.left - 30) / (width - 30)) * columns);
        if (layer < 0 || layer >= layers || column < 0 || column >= columns) return;
        const byte = bytes[start + layer * columns + column], edge = (c) => Math.floor((c * frame.channels) / columns);
        const value = byte ? `about ${(10 ** (low + ((byte - 1) / 254) * (high - low))).toPrecision(2)}` : "removed";
        says.textContent = `Layer ${layer}, ${maps.kinds[at]} channels ${edge(column)} to ${edge(column + 1) - 1}: ${value}`;
      };
    }
  }
  select.addEventListener("change", draw);
  slider.addEventListener("input", draw);
  new ResizeObserver(draw).observe(root);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
}
