"""`egm web`: a page in the browser, to ask models about pictures and to look through journals.

What is asked and what is shown is worked out in modules that know nothing of gradio (`asking`, `pictures`, `answers`,
`runs`, `fragments`), the page is put together in `ask_tab`, `journal_tab` and `page`, and served by `serve`, behind
the checks in `guard`.
"""
