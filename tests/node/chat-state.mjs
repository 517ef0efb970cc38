// The state of a chat that a program of these tests shows to nobody: AbstractChat of the AI SDK needs
// one, as React and Vue have theirs.
export class State {
  status = "ready";
  error = undefined;
  constructor(messages, changed) {
    this.messages = messages;
    this.changed = changed;
  }
  pushMessage = (message) => {
    this.messages = [...this.messages, message];
    this.changed();
  };
  popMessage = () => {
    this.messages = this.messages.slice(0, -1);
  };
  replaceMessage = (index, message) => {
    this.messages = this.messages.with(index, structuredClone(message));
    this.changed();
  };
  snapshot = (value) => structuredClone(value);
}
