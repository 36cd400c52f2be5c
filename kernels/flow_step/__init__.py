"""One step of flow matching in one launch: guidance, the solver's update, and the next evaluation's input tokens."""
