// Words that can be added to a prompt with one choice: how it should look, and what it should not look like.

export const kStyles = [
  {name: "None", text: ""},
  {name: "Photograph", text: "a photograph, natural light, sharp focus"},
  {name: "Portrait", text: "a close portrait, soft window light, shallow depth of field"},
  {name: "Landscape", text: "a wide landscape, golden hour, far horizon"},
  {name: "Watercolour", text: "a watercolour on rough paper, soft edges, bright washes"},
  {name: "Oil painting", text: "an oil painting, thick brush strokes, warm palette"},
  {name: "Pencil drawing", text: "a pencil drawing, fine hatching, white paper"},
  {name: "Ink", text: "a black ink drawing, bold lines, no shading"},
  {name: "Woodcut", text: "a woodcut print, two colours, strong contrast"},
  {name: "Pixel art", text: "pixel art, few colours, clear outline"},
  {name: "Paper collage", text: "a collage of cut paper, layered shapes, soft shadows"},
  {name: "Clay model", text: "a small clay model on a plain table, studio light"},
  {name: "Stained glass", text: "stained glass, lead lines, glowing colours"},
  {name: "Children's book", text: "an illustration of a children's book, friendly, gentle colours"},
];

export const kAvoided = [
  {name: "None", text: ""},
  {name: "Blur", text: "blurry, out of focus, motion blur"},
  {name: "Noise", text: "grainy, noisy, compression artefacts"},
  {name: "Low quality", text: "low quality, low resolution, badly drawn"},
  {name: "Text", text: "text, letters, signature, watermark"},
  {name: "Frames", text: "border, frame, margin, split picture"},
  {name: "Cropping", text: "cropped, cut off, out of frame"},
  {name: "Dull colours", text: "washed out, grey, low contrast"},
  {name: "Harsh colours", text: "oversaturated, garish, overexposed"},
  {name: "Wrong anatomy", text: "extra limbs, extra fingers, deformed hands"},
  {name: "Clutter", text: "cluttered, busy background, many objects"},
  {name: "Doubles", text: "duplicate, two heads, repeated pattern"},
  {name: "Photographs", text: "photograph, photorealistic, camera"},
];

/// The prompt with a template's words behind it.
export function joined(prompt, template) {
  const text = prompt.trim();
  if (template === "") return text;
  return text === "" ? template : `${text}, ${template}`;
}
