"""What four papers found, tried on a laptop: ``dqe study``.

For each seed a world is made (``dqe_resources.sources.world``), taken through the stages of the platform, trained on
and evaluated. All of that is done by the platform's own assets, in a data folder for each seed that can be opened in
the UI. The modules here only say what is to be made (``findings``, ``plan``, ``files``), have it made (``jobs``,
``run``, ``worker``), and read the tables (``results``) for one page (``page``).
"""
