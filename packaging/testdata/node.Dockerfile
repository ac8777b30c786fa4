# A machine as an administrator has it, PostgreSQL, Patroni and etcd under systemd, and the same as an image for pods. For tests only.
FROM localhost/debian:bookworm
RUN mkdir -p /etc/postgresql-common && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf && \
    apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        postgresql-15 patroni python3-kubernetes python3-etcd etcd-server systemd systemd-sysv sudo curl && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb
CMD ["/sbin/init"]
