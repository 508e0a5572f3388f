"""The tiny sizes: vocabulary, tokenizer, processor, and the weights of egm-tiny."""
