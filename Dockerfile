# One image for every step of the compiled pipeline (docs/scale.md): make images
FROM python:3.11-slim AS packages
COPY requirements-scale.txt .
# What comes as source only is built with the locked setuptools: nothing is fetched without a hash.
RUN sed -n '/^setuptools==/,/[^\\]$/p' requirements-scale.txt >setuptools.txt && \
    pip install --no-cache-dir --require-hashes --target /build -r setuptools.txt && \
    PYTHONPATH=/build pip install --no-cache-dir --require-hashes --no-build-isolation --target /packages -r requirements-scale.txt
# What the steps never load: tests, what compiles TensorFlow's custom ops, TensorBoard's server, Arrow's remote calls.
RUN find /packages -depth -type d -name tests -exec rm -r {} + && cd /packages && \
    rm -r tensorflow/include clang tensorboard_data_server pyarrow/libarrow_flight.so.*

FROM python:3.11-slim
COPY --from=packages /packages /packages
WORKDIR /app
# Libraries keep caches at home; nothing else is written but what a step is given to write to.
ENV PYTHONPATH=/app:/packages HOME=/tmp PIPELINE_CACHE=/tmp/cache TF_CPP_MIN_LOG_LEVEL=2
COPY client client
COPY export export
COPY serving serving
COPY components components
COPY pipelines pipelines
# Where nothing can be written, this would be done at every start.
RUN python -m compileall -q --invalidation-mode unchecked-hash .
USER 65534:65534
# Last, because they change with every commit.
ARG VERSION REVISION LICENSE
LABEL org.opencontainers.image.title="flowers-pipeline" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="$LICENSE"
