"""OpenAI's API and those who speak it: OpenAI, Azure OpenAI, vLLM, llama.cpp and what is compatible."""
