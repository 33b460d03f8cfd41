"""Methods of adapting a model: fields, checks of values, and limits of each, without torch or PEFT."""
