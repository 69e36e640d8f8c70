export default function ({ parentElement, data, setTriggerValue }) {
  const root = parentElement.querySelector(".live");
  if (root.live) root.live.take(data);
  else root.live = mount(root, data, (value) => setTriggerValue("released", value));
}
