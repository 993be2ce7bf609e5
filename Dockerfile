# One image for every step of the compiled pipeline (docs/scale.md): docker build -t flowers-pipeline .
FROM python:3.11-slim
WORKDIR /app
COPY requirements-scale.txt .
# What comes as source only is built with the image's own setuptools: nothing is fetched without a hash.
RUN pip install --no-cache-dir --require-hashes --no-build-isolation -r requirements-scale.txt
COPY client client
COPY export export
COPY serving serving
COPY components components
COPY pipelines pipelines
# Libraries keep caches at home; nothing else is written but what a step is given to write to.
ENV HOME=/tmp PIPELINE_CACHE=/tmp/cache PYTHONPATH=/app TF_CPP_MIN_LOG_LEVEL=2
USER 65534:65534
