"""Answers and questions to other people's tools and back: one module a tool, each imported where it is used."""
