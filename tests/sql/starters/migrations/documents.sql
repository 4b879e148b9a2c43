create extension if not exists vector with schema extensions;

create table documents (
  id bigserial primary key,
  content text,
  metadata jsonb,
  embedding extensions.vector(3)
);
create index on documents using hnsw (embedding vector_ip_ops);

create or replace function match_documents(query_embedding vector(3), match_threshold float, match_count int)
returns table (id bigint, content text, similarity float)
language sql stable
as $$
  select d.id, d.content, 1 - (d.embedding <=> query_embedding) as similarity
  from documents d
  where d.embedding <=> query_embedding < 1 - match_threshold
  order by d.embedding <=> query_embedding
  limit match_count;
$$;
