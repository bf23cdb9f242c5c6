// Makes elements. Text is only ever text: nothing here, or anywhere in this client, parses markup.

export function element(name, { className = "", text, ...attributes } = {}, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const LINK = /https?:\/\/[^\s<>"']+[^\s<>"'.,;:!?)\]}]/g;

// The text with its web addresses as links.
export function linked(text) {
  const parts = document.createDocumentFragment();
  let end = 0;
  for (const match of text.matchAll(LINK)) {
    parts.append(text.slice(end, match.index));
    end = match.index + match[0].length;
    parts.append(
      element("a", { text: match[0], href: match[0], target: "_blank", rel: "noopener noreferrer nofollow" }),
    );
  }
  parts.append(text.slice(end));
  return parts;
}

// One of twelve hues, always the same for the same name.
export function hue(name) {
  let sum = 0;
  for (const character of name) sum = (sum * 31 + character.codePointAt(0)) % 9973;
  return `hue-${sum % 12}`;
}
