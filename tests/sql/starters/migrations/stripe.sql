create table users (
  id uuid references auth.users not null primary key,
  billing_address jsonb
);
create table customers (id uuid references auth.users not null primary key, stripe_customer_id text);
create table products (id text primary key, active boolean, name text, metadata jsonb);
create type pricing_type as enum ('one_time', 'recurring');
create table prices (
  id text primary key,
  product_id text references products,
  unit_amount bigint,
  currency text check (char_length(currency) = 3),
  type pricing_type
);
create type subscription_status as enum ('trialing', 'active', 'canceled', 'past_due');
create table subscriptions (
  id text primary key,
  user_id uuid references auth.users not null,
  status subscription_status,
  price_id text references prices,
  created timestamp with time zone default timezone('utc'::text, now()) not null
);
alter table subscriptions enable row level security;
create policy "Own subscriptions" on subscriptions for select using (auth.uid() = user_id);
drop publication if exists supabase_realtime;
create publication supabase_realtime for table products, prices;
